"""After an erasure a search of every byte of the home, of the buckets and of a restored backup finds nothing, and no restore brings anybody back."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import KEY, ask
from integration import erasure_home
from integration.alert_servers import channels
from integration.byte_search import encodings, found_in, stands_in
from integration.erasure_home import AT_STRIPE, USER, wanted
from integration.object_stores import KEYS, Backups, S3Server

from backup import manifest
from backup.drill import drill_warehouse
from backup.export import restore_export, take_export
from backup.plan import remains
from backup.records import newest_heads, restore_records
from backup.restore import Choice, Restored, restore_warehouse
from backup.store import stores
from backup.take import take_warehouse
from cli.alert import announce_records
from cli.backup_work import anchored_problems, copy_records
from cli.main import cli
from privacy import audit, consent, erase, erasures, files, records, retention, signing, spooled, subjects
from warehouse import clock, ledger, spool, spool_format, storage
from warehouse import settings as settings_module
from warehouse.errors import FindingsFound, LeaseHeld, StepFailed, UsageError, WarehouseError
from warehouse.lease import lease
from warehouse.settings import settings

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
METRICS = [("orders", "marts.order_facts", "SELECT COUNT(*) FROM marts.order_facts")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_HOME", str(tmp_path_factory.mktemp("everywhere") / "home"))
        patch.setenv("PRIVACY__HMAC_KEY", KEY)
        settings_module.reload()
        erasure_home.fill()
        yield settings().home
    settings_module.reload()


@pytest.fixture
def filled(made: Path, home: Path, backups: Backups) -> Path:
    backups.write(lock_days=None, **dict.fromkeys(("warehouse", "export"), "{every: 1d, keep: 30d, stores: [a, b]}"))
    erasure_home.copy(made, home)
    return home


def erased(*named: str) -> erase.Certificate:
    with ledger.run("privacy erase") as run, lease("test"):
        certificate = erase.erase([subjects.parse(one) for one in named], run, lambda models: None, copy_records, remains())
        assert copy_records() == []
        return certificate


def restored(backup: str, into: Path) -> Restored:
    return restore_warehouse(Choice("warehouse"), backup, into, METRICS)


@pytest.fixture
def bucket(s3: S3Server, setting: Setting, home: Path) -> str:
    """A bucket with versions as the spool, in which two objects of hers wait and one was loaded."""
    client, name = s3.client(), f"spool-{abs(hash(str(home))) % 10**9}"
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for key, value in {"URL": f"s3://{name}/in", "ENDPOINT_URL": s3.url, "ACCESS_KEY_ID": KEYS["a"][0], "SECRET_ACCESS_KEY": KEYS["a"][1]}.items():
        setting(f"SOURCES__STRIPE__SPOOL__{key}", value)
    writer = spool.Writer("stripe")
    for body in erasure_home.bodies() * 2:
        writer.append(body, clock.now()).result(60)
    writer.close()
    loaded = next(one for one in spool.segments("stripe") if one.bucket and AT_STRIPE.encode() in one.bucket.read(one.name))
    spool.remove(loaded)
    return name


def in_bucket(s3: S3Server, name: str) -> bytes:
    """Every version of every object of a bucket."""
    client = s3.client()
    versions = client.list_object_versions(Bucket=name).get("Versions", [])
    return b"".join(client.get_object(Bucket=name, Key=one["Key"], VersionId=one["VersionId"])["Body"].read() for one in versions)


def test_nothing_is_found_in_the_home_in_buckets_and_in_what_is_restored(filled: Path, bucket: str, s3: S3Server, tmp_path: Path, setting: Setting) -> None:
    forms = {text: encodings(text) for text in wanted()}
    before = found_in(filled, wanted())
    assert {name.split("/")[0] for name in before} >= {"warehouse.duckdb", "landing", "published", "spool", "logs", "work", "tmp", "backup"}
    assert stands_in(in_bucket(s3, bucket), forms), "the search itself finds what is there"
    facts = ask("SELECT count(*), sum(revenue), count(DISTINCT user_id) FROM raw_postgres.orders")
    backup, export = take_warehouse(METRICS, 0).backup, take_export(0).backup
    assert "landing" not in {path.split("/")[0] for path in found_in(filled / "backup", wanted())}

    certificate = erased(f"stripe:{AT_STRIPE}", f"zendesk:{erasure_home.AT_ZENDESK}")

    assert found_in(filled, wanted()) == {}
    assert not stands_in(in_bucket(s3, bucket), forms)
    assert [record.body for segment in spool.segments("stripe") for record in spool.read(segment).records].count(erasure_home.bodies()[2]) == 3
    assert certificate.places["logs"] == {"logs/warehouse.jsonl": 1, "logs/warehouse.jsonl.1": 1}
    assert sum(certificate.places["spool"].values()) == 6, "of files, of what was put aside, of objects"
    until = f"{clock.now() + timedelta(days=31):%Y-%m-%d}"
    assert {one["what"]: one["until"] for one in certificate.remains}["backups of warehouse made before"] == until
    assert ask("SELECT count(*), sum(revenue), count(DISTINCT user_id) FROM raw_postgres.orders") == facts

    done = restored(backup.id, tmp_path / "back")
    assert any("erased again" in note for note in done.notes)
    assert any("models anew" in note for note in done.notes)
    assert found_in(done.into, wanted()) == {}
    assert restore_export(Choice("export"), export.id, tmp_path / "exported").tables == len(export.tables)
    assert found_in(tmp_path / "exported", wanted()) == {}
    assert [one.failed for one in drill_warehouse(METRICS, 1)] == [None]
    setting("WAREHOUSE_HOME", str(done.into))
    assert ask("SELECT count(*), sum(revenue), count(DISTINCT user_id) FROM raw_postgres.orders") == facts
    noted = ["customer_360", "once_there", "order_facts", "ticket_facts", "user_dim"]
    assert ask("SELECT DISTINCT model FROM ops.to_restate ORDER BY 1") == [(f"marts.{name}",) for name in noted]
    _loads_her_again(tmp_path / "users.parquet")
    assert ask(f"SELECT count(*) FROM read_parquet('{tmp_path / 'users.parquet'}') WHERE id = {USER} OR email_hash IS NOT NULL") == [(0,)]


def _loads_her_again(file: Path) -> None:
    with storage.open_warehouse() as connection:
        columns = "TIMESTAMPTZ '2026-01-01' AS created_at, now() AS _loaded_at"
        connection.execute(f"COPY (SELECT {USER}::BIGINT AS id, '{erasure_home.pseudonym()}' AS email_hash, {columns}) TO '{file}' (FORMAT parquet)")
    assert retention.keep_out("postgres", "users", file) == 1


def test_a_restore_is_refused_when_the_ledger_is_missing_or_older(filled: Path, tmp_path: Path, fails: Fails) -> None:
    backup = take_warehouse(METRICS, 0).backup
    assert backup.erasures is None, "nobody was erased yet"
    assert restore_records(tmp_path / "none") is None
    erased("zendesk:8")
    shutil.copytree(settings().erasures, tmp_path / "older")
    erased(f"user:{USER}")
    shutil.move(settings().erasures, tmp_path / "newest")

    assert {one.failed is None for one in drill_warehouse(METRICS, 1)} == {False}

    def refused() -> WarehouseError:
        error = fails(restored, backup.id, tmp_path / "back")
        assert isinstance(error, StepFailed)
        assert "warehouse restore records" in error.mend
        assert not list(tmp_path.glob("*back*"))
        return error

    assert "is missing" in refused().what
    shutil.copytree(tmp_path / "older", settings().erasures)
    assert "lines, and" in refused().what
    assert any("its tail was cut off" in problem for problem in anchored_problems())
    assert isinstance(fails(restore_records, settings().erasures), UsageError), "nothing is written over"
    shutil.rmtree(settings().erasures)
    found = restore_records(settings().erasures)
    assert found is not None
    assert found[0].heads["erasures.jsonl"] == erasures.mark()
    assert anchored_problems() == []
    assert found_in(restored(backup.id, tmp_path / "back").into, wanted()[:-1]).keys() <= {"landing"}
    assert take_warehouse(METRICS, 0).backup.erasures == erasures.mark()


def test_another_ledger_than_the_one_that_was_noted_is_refused(filled: Path, tmp_path: Path, fails: Fails) -> None:
    erased("zendesk:8")
    backup = take_warehouse(METRICS, 0).backup
    assert not [file.path for file in backup.files if file.path.startswith("erasures")], "the ledger governs backups, it is in none"
    shutil.rmtree(settings().erasures)
    for number in range(3):
        erasures.begin([f"{number}" * 64], [])
    assert "another one" in fails(restored, backup.id, tmp_path / "back").what
    for store in stores().values():
        assert all(key.startswith("records/") for key in store.held("records/"))
        assert manifest.listed(store, "warehouse")


def test_what_is_written_to_the_spool_meanwhile_is_waited_for_and_nothing_of_others_is_lost(filled: Path) -> None:
    writer, going, sent = spool.Writer("stripe"), threading.Event(), []
    theirs = b'{"id":"evt_%d","created":3,"type":"charge.succeeded","data":{"object":{"customer":"cus_Other"}}}'

    def receive() -> None:
        while not going.is_set():
            body = theirs % (1000 + len(sent))
            writer.append(body, clock.now()).result(60)
            sent.append(body)

    writer.append(erasure_home.bodies()[0], clock.now()).result(60)
    thread = threading.Thread(target=receive)
    thread.start()
    tags = frozenset({subjects.tag("stripe", AT_STRIPE), subjects.tag("email", erasure_home.pseudonym())})
    done = spooled.erase_spool(tags)
    going.set()
    thread.join()
    writer.close()
    assert done.waiting == 0
    held = [record.body for segment in spool.segments("stripe") for record in spool.read(segment).records]
    assert not [body for body in held if AT_STRIPE.encode() in body]
    assert sorted(body for body in held if body in set(sent)) == sorted(sent)


def test_a_writer_that_hangs_is_not_waited_for_for_ever(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "PATIENCE", 0.2)
    segment = next((filled / "spool" / "stripe").glob("*.spool"))
    with segment.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = spooled.erase_spool(frozenset({subjects.tag("stripe", AT_STRIPE)}))
    assert done.waiting == 1
    assert "the next load" in str(spooled.describe(done))
    assert len(spool_format.content_of(segment.read_bytes(), is_sealed=True).records) == 3, "a file that is written to is left alone"


STEPS = [
    (erasures, "erase_raw"), (files, "erase_landing"), (files, "erase_built"), (files, "erase_published"), (consent, "expose"), (spooled, "erase_spool"),
    (spooled, "erase_lines"), (files, "remove_scratch"), (files, "compact"), (erase, "write_atomically"), (audit, "note"), (erasures, "finish"),
]  # fmt: skip


def test_interrupted_after_any_step_it_goes_on_and_no_model_is_forgotten(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def dies_after(really: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **named: object) -> object:
            really(*given, **named)
            if given[:1] != ("begin erase",):
                raise Killed
            return None

        return step

    for number, (room, name) in enumerate(STEPS):
        with monkeypatch.context() as patched:
            patched.setattr(room, name, dies_after(getattr(room, name)))
            with pytest.raises(Killed):
                erased(f"user:{USER}")
        assert [one.number for one in erasures.all_erasures() if not one.is_done] == ([1] if number + 1 < len(STEPS) else []), name
    again = erased(f"user:{USER}")
    assert again.resumed == [], "the last one had ended, but for telling so"
    assert found_in(filled, [one for one in wanted() if one != str(erasure_home.AT_ZENDESK)]) == {}
    assert {model for (model,) in ask("SELECT model FROM ops.to_restate")} >= {"marts.order_facts", "marts.user_dim"}
    certificates = sorted((settings().erasures / "certificates").iterdir())
    assert json.loads(certificates[0].read_text())["resumed"] == [1]


def test_while_a_run_is_writing_an_erasure_waits_for_it(
    filled: Path, fails: Fails, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.privacy._build_anew", lambda run, models: None)
    with (filled / "lease.lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = fails(cli, ["privacy", "erase", "--subject", f"user:{USER}", "--wait", "0"], standalone_mode=False)
        assert isinstance(refused, LeaseHeld)
        assert erasures.position() == 0
        threading.Timer(1.0, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        cli(["privacy", "erase", "--subject", f"user:{USER}"], standalone_mode=False)
    told = capsys.readouterr()
    assert "begins when it has ended" in told.err
    assert json.loads(told.out[told.out.index("{") :])["number"] == 1


def test_a_signed_certificate_is_checked_with_the_public_key_alone(filled: Path, setting: Setting, tmp_path: Path, fails: Fails) -> None:
    private, public = signing.new_key()
    setting("PRIVACY__SIGNING_KEY", private)
    erased("zendesk:8")
    text = erase.certificate_file(1).read_text()
    assert erase.is_genuine(text)
    assert private.removeprefix("ed25519:") not in text
    for name in ("PRIVACY__SIGNING_KEY", "PRIVACY__HMAC_KEY"):
        setting(name, None)
    file = tmp_path / "000001.json"
    file.write_text(text)
    cli(["privacy", "verify", str(file), "--public-key", public], standalone_mode=False)
    file.write_text(text.replace('"number": 1', '"number": 2'))
    assert isinstance(fails(cli, ["privacy", "verify", str(file), "--public-key", public], standalone_mode=False), FindingsFound)
    assert signing.problems(text, signing.new_key()[1]) == ["it was edited, or another key signed it"]
    assert "is no Ed25519 key" in fails(signing.problems, text, "ed25519:AAAA").what
    unsigned = text.replace('"signature": "', '"signature": "", "was": "')
    assert signing.problems(unsigned, public) == ["it is not signed: PRIVACY__SIGNING_KEY was not set when it was made"]


def test_the_heads_in_the_stores_and_in_a_mailbox_show_a_cut_tail_and_an_edit(filled: Path, setting: Setting, backups: Backups) -> None:
    erased("zendesk:8")
    with channels(setting) as (_, mailbox):
        announce_records()
        announce_records()
        mails = list(mailbox.mails)
    assert len(mails) == 1
    assert (erasures.mark() or "")[:40] in mails[0].as_string()
    assert all(backups.keys(store, ".head") for store in "ab")
    trail = audit.trail()
    lines = trail.path.read_text().splitlines(keepends=True)
    trail.path.write_text("".join(lines[:-1]))  # with an anchor made anew by somebody who has the key
    trail.anchor.unlink()
    cut = f"audit.jsonl: its tail was cut off: {len(lines)} lines were noted in {{}}, {len(lines) - 1} are there"
    assert anchored_problems() == [cut.format(where) for where in _where()]
    trail.path.write_text("".join([*lines[:-1], lines[-1].replace('"seal": "', '"seal": "0')]))
    assert all("is not the one that was noted" in problem for problem in anchored_problems())
    trail.path.write_text("".join([*lines[:-2], lines[-1]]))
    assert records.problems()
    assert len(anchored_problems()) == 2


def _where() -> list[str]:
    return [f"store {store.name}, {head.at:%Y-%m-%d %H:%M:%S} UTC" for store, head in newest_heads()]
