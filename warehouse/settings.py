"""Typed settings from the environment, `.env`, and (last) the demo company's own file.

Every setting is listed in `.env.example`; a test keeps the two together.
"""

import os
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from warehouse.connection_string import hosts_of, secrets_of
from warehouse.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
"""The project's checkout: where declarations (YAML, SQL) stand."""

MINIMUM_KEY_LENGTH = 32


class PostgresSettings(BaseModel):
    """How to reach the production PostgreSQL."""

    model_config = ConfigDict(extra="forbid")
    credentials: SecretStr | None = None


class StripeSettings(BaseModel):
    """How to reach Stripe, and since when."""

    model_config = ConfigDict(extra="forbid")
    stripe_secret_key: SecretStr | None = None
    base_url: str = "https://api.stripe.com"
    start_date: date | None = None


class ZendeskSettings(BaseModel):
    """How to reach Zendesk: by an OAuth client, or as long as Zendesk allows it by an API token; and since when."""

    model_config = ConfigDict(extra="forbid")
    base_url: str | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    email: str | None = None
    api_token: SecretStr | None = None
    start_date: date | None = None


class SourcesSettings(BaseModel):
    """One entry per source that needs settings, named like its module in `pipelines/`."""

    model_config = ConfigDict(extra="forbid")
    postgres: PostgresSettings = PostgresSettings()
    stripe: StripeSettings = StripeSettings()
    zendesk: ZendeskSettings = ZendeskSettings()


class PrivacySettings(BaseModel):
    """The key of the pseudonyms. Losing it breaks joins with new data; leaking it breaks the pseudonyms."""

    model_config = ConfigDict(extra="forbid")
    hmac_key: SecretStr | None = None
    hmac_key_id: str = "k1"

    @field_validator("hmac_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and 0 < len(value.get_secret_value()) < MINIMUM_KEY_LENGTH:
            raise ValueError(f"has {len(value.get_secret_value())} characters, at least {MINIMUM_KEY_LENGTH} are needed")
        return value


class Settings(BaseSettings):
    """All settings. The environment wins over `.env`, and `.env` over the demo company's file."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore", env_ignore_empty=True)

    home: Annotated[Path, Field(validation_alias="WAREHOUSE_HOME")] = Path("data")
    now: Annotated[datetime | None, Field(validation_alias="WAREHOUSE_NOW")] = None
    storage: Annotated[Literal["duckdb", "motherduck"], Field(validation_alias="WAREHOUSE_STORAGE")] = "duckdb"
    memory_limit: Annotated[str, Field(validation_alias="WAREHOUSE_MEMORY_LIMIT", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")] = "600MB"
    threads: Annotated[int, Field(validation_alias="WAREHOUSE_THREADS", ge=1, le=256)] = 2
    motherduck_token: Annotated[SecretStr | None, Field(validation_alias="MOTHERDUCK_TOKEN")] = None
    motherduck_database: Annotated[str, Field(validation_alias="MOTHERDUCK_DATABASE", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "warehouse"
    state_credentials: Annotated[SecretStr | None, Field(validation_alias="WAREHOUSE_STATE_CREDENTIALS")] = None
    sources: SourcesSettings = SourcesSettings()
    privacy: PrivacySettings = PrivacySettings()

    @field_validator("now")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return (value if value.is_absolute() else ROOT / value).resolve()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        own = DotEnvSettingsSource(settings_cls, env_file=ROOT / ".env")
        demo = DotEnvSettingsSource(settings_cls, env_file=demo_env_file(_home_from(env_settings, own)))
        return init_settings, env_settings, own, demo

    @property
    def warehouse_file(self) -> Path:
        """The writer's DuckDB file; only the process that holds the lease opens it."""
        return self.home / "warehouse.duckdb"

    @property
    def state_file(self) -> Path:
        """SQLMesh's state, when it is kept in DuckDB."""
        return self.home / "sqlmesh_state.duckdb"

    @property
    def landing(self) -> Path:
        """Immutable Parquet of every loaded package."""
        return self.home / "landing"

    @property
    def published(self) -> Path:
        """Read copies of the marts."""
        return self.home / "published"

    @property
    def is_demo(self) -> bool:
        """Whether the PostgreSQL in use is the demo company of this home."""
        return _demo_credentials(self.home) is not None and self._postgres() == _demo_credentials(self.home)

    def _postgres(self) -> str | None:
        given = self.sources.postgres.credentials
        return given.get_secret_value() if given else None

    def postgres_credentials(self) -> str:
        """The connection string of the production PostgreSQL.

        Raises:
            UsageError: it is not set, or it is another database than the demo company that filled this home.
        """
        given = self._postgres()
        if not given:
            raise UsageError(
                "SOURCES__POSTGRES__CREDENTIALS is not set: no PostgreSQL to load from.",
                mend="export it or write it into .env, e.g. postgresql://reader:…@host:5432/shop; or run `make demo`",
            )
        if demo_env_file(self.home).exists() and not self.is_demo:
            raise UsageError(
                f"WAREHOUSE_HOME ({self.home}) holds the demo company, but SOURCES__POSTGRES__CREDENTIALS names another database.",
                mend="set WAREHOUSE_HOME to a new folder for your own company, or unset SOURCES__POSTGRES__CREDENTIALS",
            )
        return given

    def is_configured(self, source: str) -> bool:
        """Whether a source has its secret; one without it is left out of `warehouse run`. PostgreSQL is never left out.

        Zendesk is left out only when none of its secrets is set: one that is missing beside others is to be told.
        """
        zendesk = self.sources.zendesk
        has_secret = {"stripe": bool(self._stripe()), "zendesk": any((zendesk.client_id, zendesk.client_secret, zendesk.api_token))}
        return has_secret.get(source, True)

    def _stripe(self) -> str:
        given = self.sources.stripe.stripe_secret_key
        return given.get_secret_value() if given else ""

    def stripe_secret_key(self) -> str:
        """The key of Stripe's API.

        Raises:
            UsageError: it is not set.
        """
        if not self._stripe():
            raise UsageError(
                "SOURCES__STRIPE__STRIPE_SECRET_KEY is not set: no Stripe account to load from.",
                mend="export a restricted key that may read everything, or write it into .env",
            )
        return self._stripe()

    def zendesk_base_url(self) -> str:
        """Where Zendesk is asked, without a slash at the end.

        Raises:
            UsageError: it is not set, or is no address.
        """
        given = (self.sources.zendesk.base_url or "").rstrip("/")
        if not given.startswith(("https://", "http://")):
            raise UsageError(
                f"SOURCES__ZENDESK__BASE_URL is {'not an address' if given else 'not set: no Zendesk to load from'}.",
                mend="set it to your account's own address, e.g. https://acme.zendesk.com",
            )
        return given

    def zendesk_oauth(self) -> tuple[str, str] | None:
        """Id and secret of the OAuth client; None when only an API token is set.

        Raises:
            UsageError: one of the two is missing.
        """
        given, secret = self.sources.zendesk, self.sources.zendesk.client_secret
        if given.client_id and secret and secret.get_secret_value():
            return given.client_id, secret.get_secret_value()
        if given.api_token and not given.client_id and not secret:
            return None
        missing = "CLIENT_SECRET" if given.client_id else "CLIENT_ID"
        raise UsageError(
            f"SOURCES__ZENDESK__{missing} is not set: Zendesk cannot be signed in to.",
            mend="make a confidential OAuth client in Zendesk's Admin Center and set SOURCES__ZENDESK__CLIENT_ID and SOURCES__ZENDESK__CLIENT_SECRET",
        )

    def zendesk_api_token(self) -> tuple[str, str]:
        """Email and API token, the way that Zendesk turns off in April 2027.

        Raises:
            UsageError: one of the two is missing.
        """
        given, token = self.sources.zendesk, self.sources.zendesk.api_token
        if not given.email or not token or not token.get_secret_value():
            missing = "API_TOKEN" if given.email else "EMAIL"
            raise UsageError(
                f"SOURCES__ZENDESK__{missing} is not set: an API token is used together with the email of its user.",
                mend="set both, or better SOURCES__ZENDESK__CLIENT_ID and SOURCES__ZENDESK__CLIENT_SECRET of an OAuth client",
            )
        return given.email, token.get_secret_value()

    def hmac_key(self) -> bytes:
        """The key of the pseudonyms.

        Raises:
            UsageError: it is not set.
        """
        given = self.privacy.hmac_key
        if given is None or not given.get_secret_value():
            raise UsageError(
                "PRIVACY__HMAC_KEY is not set: personal data cannot be pseudonymised, so nothing is loaded.",
                mend="`openssl rand -hex 32` makes one; keep a copy where your other secrets are",
            )
        return given.get_secret_value().encode()


def demo_env_file(home: Path) -> Path:
    """Where the demo company leaves its connection string and key for this home."""
    return home / "demo" / "demo.env"


def _home_from(*sources: PydanticBaseSettingsSource) -> Path:
    for source in sources:
        value = source().get("WAREHOUSE_HOME") or source().get("home")
        if value:
            path = Path(str(value))
            return (path if path.is_absolute() else ROOT / path).resolve()
    return (ROOT / "data").resolve()


@lru_cache(maxsize=4)
def _demo_credentials(home: Path) -> str | None:
    from dotenv import dotenv_values

    file = demo_env_file(home)
    return dotenv_values(file).get("SOURCES__POSTGRES__CREDENTIALS") if file.exists() else None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        UsageError: a setting has a value that is not allowed; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise UsageError("\n".join(_say(problem) for problem in error.errors()), mend="see .env.example for every setting") from None
    except Exception as error:  # pydantic-settings wraps JSON errors of nested values in its own type
        raise UsageError(f"the settings cannot be read: {type(error).__name__}", mend="see .env.example") from None


def reload() -> None:
    """Forget what was read, so that the next `settings()` reads the environment again."""
    settings.cache_clear()
    _demo_credentials.cache_clear()


def secret_values() -> list[str]:
    """Every secret now in use, longest first, for scrubbing messages."""
    given = _given_secrets()
    inside = [part for value in given for part in secrets_of(value) if len(part) > 3]
    return sorted({*given, *inside}, key=len, reverse=True)


def secret_hosts() -> list[str]:
    """The names and addresses of the servers now in use, longest first, for scrubbing messages."""
    return sorted({host for value in _given_secrets() for host in hosts_of(value)}, key=len, reverse=True)


def _given_secrets() -> list[str]:
    try:
        now = settings()
    except UsageError:
        return [value for name, value in os.environ.items() if len(value) > 7 and any(word in name for word in ("CREDENTIALS", "TOKEN", "KEY", "SECRET"))]
    secrets = (now.motherduck_token, now.state_credentials, now.sources.postgres.credentials, now.sources.stripe.stripe_secret_key, now.privacy.hmac_key,
               now.sources.zendesk.client_secret, now.sources.zendesk.api_token)  # fmt: skip
    given = [secret.get_secret_value() for secret in secrets if secret is not None and secret.get_secret_value()]
    return [*given, *(value for value in [os.environ.get("PGPASSWORD", "")] if len(value) > 3)]  # where tokens are given


def _say(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    name = location[0] if location[0].isupper() else "__".join(location).upper()
    may_be_shown = name.startswith("WAREHOUSE_") and "CREDENTIALS" not in name  # whatever else is set may be a secret
    found = f" (found {problem['input']!r})" if may_be_shown else ""
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a setting{found}"
    return f"{name}: {problem['msg']}{found}"
