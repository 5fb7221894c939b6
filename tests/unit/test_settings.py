"""Settings: typed, from the environment, `.env` or the demo; secrets stay secret."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warehouse import clock, settings
from warehouse.connection_string import parameters, password_of
from warehouse.errors import UsageError, WarehouseError, scrub

Setting = Callable[[str, str | None], None]


def test_the_home_is_absolute_and_everything_local_is_in_it(home: Path) -> None:
    now = settings.settings()
    assert now.home == home
    assert all(path.is_relative_to(home) for path in (now.warehouse_file, now.state_file, now.landing, now.published))


def test_a_relative_home_is_relative_to_the_checkout(setting: Setting) -> None:
    setting("WAREHOUSE_HOME", "./data")
    assert settings.settings().home == settings.ROOT / "data"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WAREHOUSE_STORAGE", "postgres", "WAREHOUSE_STORAGE"),
        ("WAREHOUSE_NOW", "yesterday", "WAREHOUSE_NOW"),
        ("WAREHOUSE_MEMORY_LIMIT", "plenty", "WAREHOUSE_MEMORY_LIMIT"),
        ("WAREHOUSE_THREADS", "0", "WAREHOUSE_THREADS"),
        ("SOURCES__POSTGRES__PASSWORD", "hunter22", "SOURCES__POSTGRES__PASSWORD"),
        ("SOURCES__MYSQL__CREDENTIALS", "mysql://admin:hunter22@h/db", "SOURCES__MYSQL"),
        ("PRIVACY__HMAC_KEY", "too short", "PRIVACY__HMAC_KEY"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_a_secret_one_is_not_shown(
    setting: Setting, fails: Callable[..., WarehouseError], name: str, value: str, says: str
) -> None:
    setting(name, value)
    error = fails(settings.settings)
    assert isinstance(error, UsageError)
    assert says in error.what
    if "KEY" in name or "PASSWORD" in name or "CREDENTIALS" in name:
        assert value not in str(error)


def test_a_missing_source_or_key_says_how_to_set_it(setting: Setting, fails: Callable[..., WarehouseError]) -> None:
    assert "SOURCES__POSTGRES__CREDENTIALS is not set" in fails(settings.settings().postgres_credentials).what
    setting("PRIVACY__HMAC_KEY", None)
    error = fails(settings.settings().hmac_key)
    assert "PRIVACY__HMAC_KEY is not set" in error.what
    assert "openssl rand -hex 32" in error.mend


def test_the_environment_wins_over_the_demo_file(home: Path, setting: Setting) -> None:
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text("SOURCES__POSTGRES__CREDENTIALS=postgresql://demo:pw@127.0.0.1:1/shop\nPRIVACY__HMAC_KEY_ID=demo\n")
    settings.reload()
    assert settings.settings().is_demo
    assert settings.settings().postgres_credentials().startswith("postgresql://demo")
    assert settings.settings().privacy.hmac_key_id == "demo"
    setting("PRIVACY__HMAC_KEY_ID", "k7")
    assert settings.settings().privacy.hmac_key_id == "k7"


def test_a_home_of_the_demo_refuses_another_database(home: Path, setting: Setting, fails: Callable[..., WarehouseError]) -> None:
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text("SOURCES__POSTGRES__CREDENTIALS=postgresql://demo:pw@127.0.0.1:1/shop\n")
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://real:secret9@db.example:5432/production")
    error = fails(settings.settings().postgres_credentials)
    assert "holds the demo company" in error.what
    assert "secret9" not in str(error)


STAND_IN = "SOURCES__STRIPE__BASE_URL=http://127.0.0.1:2\nSOURCES__STRIPE__STRIPE_SECRET_KEY=sk_test_of_the_demo\n"


def test_the_home_of_the_demo_reads_its_stand_in(home: Path, setting: Setting) -> None:
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text(STAND_IN)
    setting("SOURCES__STRIPE__START_DATE", "1998-01-01")
    assert settings.settings().stripe_secret_key() == "sk_test_of_the_demo"
    assert settings.settings().is_configured("stripe")


def test_the_home_of_the_demo_takes_nothing_out_of_a_bucket(home: Path, setting: Setting, fails: Callable[..., WarehouseError]) -> None:
    assert settings.settings().spool_bucket("stripe") is None
    setting("SOURCES__STRIPE__SPOOL__URL", "s3://acme-spool/webhooks/")
    given = settings.settings().spool_bucket("stripe")
    assert given is not None
    assert (given.bucket, given.prefix, settings.settings().spool_bucket("zendesk")) == ("acme-spool", "webhooks/", None)
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text(STAND_IN)
    settings.reload()
    assert "holds the demo company, but SOURCES__STRIPE__SPOOL__URL names a bucket" in fails(settings.settings().spool_bucket, "stripe").what


@pytest.mark.parametrize(
    "url", ["acme-spool", "s3://", "s3://Acme", "s3://key:secret9@acme-spool", "https://acme-spool.s3.amazonaws.com", "s3://acme-spool//a"]
)
def test_what_names_no_bucket_is_refused_without_showing_it(setting: Setting, fails: Callable[..., WarehouseError], url: str) -> None:
    setting("SOURCES__STRIPE__SPOOL__URL", url)
    error = str(fails(settings.settings))
    assert "SOURCES__STRIPE__SPOOL__URL" in error
    assert "secret9" not in error


def test_the_example_copied_to_env_does_not_keep_the_demo_from_its_stand_in(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text(STAND_IN + "PRIVACY__HMAC_KEY_ID=demo\n")
    (tmp_path / ".env").write_text((settings.ROOT / ".env.example").read_text())
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    settings.reload()
    assert settings.settings().stripe_secret_key() == "sk_test_of_the_demo"
    assert settings.settings().sources.stripe.base_url == "http://127.0.0.1:2"
    assert settings.settings().privacy.hmac_key_id == "demo"
    (tmp_path / ".env").write_text("SOURCES__STRIPE__BASE_URL=https://stripe.example\n")
    settings.reload()
    with pytest.raises(UsageError, match="holds the demo company"):
        settings.settings().stripe_secret_key()


@pytest.mark.parametrize(
    ("of_demo", "name", "value"),
    [
        (STAND_IN, "SOURCES__STRIPE__STRIPE_SECRET_KEY", "rk_live_secret9"),  # a real key would go to the stand-in
        (STAND_IN, "SOURCES__STRIPE__BASE_URL", "https://api.stripe.com"),  # the stand-in's key would go to Stripe
        ("PRIVACY__HMAC_KEY_ID=demo\n", "SOURCES__STRIPE__STRIPE_SECRET_KEY", "rk_live_secret9"),  # real rows would come into the demo
    ],
)
def test_a_home_of_the_demo_refuses_another_account(
    home: Path, setting: Setting, fails: Callable[..., WarehouseError], of_demo: str, name: str, value: str
) -> None:
    demo = settings.demo_env_file(home)
    demo.parent.mkdir(parents=True)
    demo.write_text(of_demo)
    setting(name, value)
    error = fails(settings.settings().stripe_secret_key)
    assert isinstance(error, UsageError)
    assert "holds the demo company" in error.what
    assert "secret9" not in str(error)


def test_a_key_of_one_s_own_outside_the_demo_is_taken_as_it_is(setting: Setting) -> None:
    setting("SOURCES__STRIPE__STRIPE_SECRET_KEY", "rk_live_secret9")
    assert settings.settings().stripe_secret_key() == "rk_live_secret9"


def test_the_one_clock_can_be_set_and_is_always_utc(setting: Setting) -> None:
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 5
    setting("WAREHOUSE_NOW", "1998-07-01T02:00:00+02:00")
    assert clock.now() == datetime(1998, 7, 1, tzinfo=UTC)
    assert str(clock.today()) == "1998-07-01"
    setting("WAREHOUSE_NOW", "1998-07-01 00:00:00")
    assert clock.now() == datetime(1998, 7, 1, tzinfo=UTC)


def test_secrets_are_not_in_any_representation(setting: Setting) -> None:
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:s3cr3t-word@db.example:5432/shop")
    setting("MOTHERDUCK_TOKEN", "token-of-the-duck")
    shown = repr(settings.settings()) + str(settings.settings().model_dump())
    for secret in ("s3cr3t-word", "token-of-the-duck", "thirty-two"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("text", "kept_out"),
    [
        ("connection to postgresql://reader:s3cr3t-word@db failed", "s3cr3t-word"),
        ("the word is s3cr3t-word, plain", "s3cr3t-word"),
        ("host=db password=other-word user=x", "other-word"),
        ("host=db password='with space' user=x", "with space"),
        ("mysql://admin:unknown-word@host/db", "unknown-word"),
        ("Could not convert 'jo.doe@example.com' to INT", "jo.doe"),
        ("value 078-05-1120 is odd", "078-05-1120"),
        ("call +49 30 1234567 now", "1234567"),
    ],
)
def test_messages_are_scrubbed_of_secrets_and_personal_data(setting: Setting, text: str, kept_out: str) -> None:
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:s3cr3t-word@db.example:5432/shop")
    assert kept_out not in scrub(text)


def test_scrubbing_keeps_what_helps() -> None:
    assert scrub("relation shop.orders does not exist, LINE 1") == "relation shop.orders does not exist, LINE 1"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://u:p%40ss@h/db", "p@ss"),
        ("postgresql://u@h/db", None),
        ("host=h user=u password=plain", "plain"),
        ("host=h password='two words'", "two words"),
        ("no password here", None),
    ],
)
def test_the_password_is_found_in_every_form(url: str, password: str | None) -> None:
    assert password_of(url) == password


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@h:1/d", {"user": "u", "password": "p", "host": "h", "port": "1", "dbname": "d"}),
        ("postgresql://u:p@replica:5432,primary:5433/d", {"user": "u", "password": "p", "host": "replica,primary", "port": "5432,5433", "dbname": "d"}),
        ("postgresql://u@a,b:5433/d", {"user": "u", "host": "a,b", "port": ",5433", "dbname": "d"}),
        ("postgresql://u@[2001:db8::7]:5433/d", {"user": "u", "host": "2001:db8::7", "port": "5433", "dbname": "d"}),
        ("postgresql://u@%2Fvar%2Frun/d", {"user": "u", "host": "/var/run", "dbname": "d"}),
        ("postgresql:///d?host=/var/run&port=5433", {"host": "/var/run", "port": "5433", "dbname": "d"}),
        ("postgresql://u:p%40%2F+@h/d?sslmode=verify-full", {"user": "u", "password": "p@/+", "host": "h", "dbname": "d", "sslmode": "verify-full"}),
        ("postgresql://u:a@b/c@h/d", {"user": "u", "password": "a@b/c", "host": "h", "dbname": "d"}),
        ("postgres://h?ssl=true", {"host": "h", "sslmode": "require"}),
        (r"host=h password='it\'s' port = 5", {"host": "h", "password": "it's", "port": "5"}),
    ],
)
def test_a_connection_string_is_taken_apart_as_libpq_does(text: str, expected: dict[str, str]) -> None:
    assert parameters(text) == expected


@pytest.mark.parametrize("text", ["postgresql://u:p@h:fifty/d", "postgresql://u:p@2001:db8::7/d", "nonsense"])
def test_what_is_no_connection_string_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(has a port|is not a connection)"):
        parameters(text)


@pytest.mark.parametrize(
    "text",
    [
        'connection to server at "db.internal" (10.0.0.3), port 5432 failed: timeout expired',
        'connection to server at "10.0.0.3", port 5432 failed',
        'could not translate host name "db.internal" to address',
        'server certificate for "db.internal" does not match host name "10.0.0.3"',
        'FATAL: no pg_hba.conf entry for host "10.0.0.3", user "reader"',
        """Unable to connect to Postgres at "host='db.internal,10.0.0.3' port='5432'": no""",
        "somebody spoke of DB.internal:5432",
    ],
)
def test_messages_are_scrubbed_of_servers(setting: Setting, text: str) -> None:
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:s3cr3t-word@db.internal,replica:5433/shop")
    shown = scrub(text).lower()
    assert "db.internal" not in shown
    assert "10.0.0.3" not in shown


def test_a_password_is_scrubbed_in_both_its_forms(setting: Setting) -> None:
    setting("SOURCES__POSTGRES__CREDENTIALS", "postgresql://reader:s3cr%40t%2Fword@localhost/shop")
    assert scrub("s3cr%40t%2Fword s3cr@t/word localhost") == "*** *** localhost"


def test_zendesk_is_left_out_only_when_none_of_its_secrets_is_set_and_they_are_scrubbed(setting: Setting, fails: Callable[..., WarehouseError]) -> None:
    assert not settings.settings().is_configured("zendesk")
    setting("SOURCES__ZENDESK__CLIENT_SECRET", "the secret of a client")
    assert settings.settings().is_configured("zendesk")
    assert "SOURCES__ZENDESK__CLIENT_ID is not set" in fails(settings.settings().zendesk_oauth).what
    setting("SOURCES__ZENDESK__BASE_URL", "acme.zendesk.com")
    assert "SOURCES__ZENDESK__BASE_URL is not an address" in fails(settings.settings().zendesk_base_url).what
    setting("SOURCES__ZENDESK__API_TOKEN", "a token of a user")
    assert scrub("the secret of a client, a token of a user") == "***, ***"
