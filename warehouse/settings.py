"""Typed settings from the environment, `.env`, and (last) the demo company's own file.

Every setting is listed in `.env.example`; a test keeps the two together.
"""

import json
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
_SECRETS_OF_GOOGLE = ("private_key", "private_key_id", "refresh_token", "client_secret")


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
    webhook_secrets: SecretStr | None = None


class GoogleAnalyticsSettings(BaseModel):
    """Which properties of Google Analytics 4 to read, as whom, and which days besides the newest."""

    model_config = ConfigDict(extra="forbid")
    property_ids: str | None = Field(default=None, pattern=r"^\s*\d+(\s*,\s*\d+)*\s*$")
    credentials: SecretStr | None = None
    base_url: str = "https://analyticsdata.googleapis.com"
    start_date: date | None = None
    end_date: date | None = None


class SourcesSettings(BaseModel):
    """One entry per source that needs settings, named like its module in `pipelines/`."""

    model_config = ConfigDict(extra="forbid")
    postgres: PostgresSettings = PostgresSettings()
    stripe: StripeSettings = StripeSettings()
    google_analytics: GoogleAnalyticsSettings = GoogleAnalyticsSettings()


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
        # A `.env` copied from the example says what is the default anyway; that is no wish to leave the demo.
        own.env_vars = {name: value for name, value in own.env_vars.items() if name not in demo.env_vars or value != _default(settings_cls, name)}
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
    def spool(self) -> Path:
        """What was received and is not loaded yet; it holds personal data."""
        return self.home / "spool"

    @property
    def is_demo(self) -> bool:
        """Whether the PostgreSQL in use is the demo company of this home."""
        return self._postgres() is not None and self._postgres() == demo_values(self.home).get("SOURCES__POSTGRES__CREDENTIALS")

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
        """Whether a source has its secret; one without it is left out of `warehouse run`. PostgreSQL is never left out."""
        if source == "google_analytics":
            given = self.sources.google_analytics
            return bool(given.property_ids and (self._google_analytics() or given.base_url.startswith("http://")))
        return source != "stripe" or bool(self._stripe())

    def _stripe(self) -> str:
        given = self.sources.stripe.stripe_secret_key
        return given.get_secret_value() if given else ""

    def stripe_secret_key(self) -> str:
        """The key of Stripe's API.

        Raises:
            UsageError: it is not set, or the key or the address is another than the demo company's in its home.
        """
        if not self._stripe():
            raise UsageError(
                "SOURCES__STRIPE__STRIPE_SECRET_KEY is not set: no Stripe account to load from.",
                mend="export a restricted key that may read everything, or write it into .env",
            )
        self._require_unmixed("stripe")
        return self._stripe()

    def stripe_webhook_secrets(self) -> list[str]:
        """The signing secrets of Stripe's webhook endpoints, each of them valid.

        Raises:
            UsageError: none is set.
        """
        given = self.sources.stripe.webhook_secrets
        secrets = _parts(given.get_secret_value() if given else "")
        if not secrets:
            raise UsageError(
                "SOURCES__STRIPE__WEBHOOK_SECRETS is not set: no webhook could be told from a forged one.",
                mend="copy the endpoint's signing secret (whsec_…) from Stripe; while it is rotated both, with a comma between",
            )
        return secrets

    def _require_unmixed(self, source: str) -> None:
        """Refuse settings of a source that are not the demo company's in its home: no secret reaches the wrong server, no row the wrong home."""
        if not demo_env_file(self.home).exists():
            return
        given = getattr(self.sources, source)
        own, prefix = demo_values(self.home), f"SOURCES__{source}__".upper()
        others = [name for name in own if name.startswith(prefix) and own[name] != _plain(getattr(given, name.removeprefix(prefix).lower()))]
        if others or not any(name.startswith(prefix) for name in own):
            raise UsageError(
                f"WAREHOUSE_HOME ({self.home}) holds the demo company, but {prefix}* names another account{': ' if others else ''}{', '.join(others)}.",
                mend=f"set WAREHOUSE_HOME to a new folder for your own company, or unset {prefix}*",
            )

    def google_analytics_properties(self) -> list[str]:
        """The numbers of the properties, in the order given.

        Raises:
            UsageError: none is set.
        """
        given = self.sources.google_analytics.property_ids
        if not given:
            raise UsageError(
                "SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS is not set: no property of Google Analytics to load from.",
                mend="export the numbers of your properties, separated by commas, or write them into .env",
            )
        self._require_unmixed("google_analytics")
        return list(dict.fromkeys(number.strip() for number in given.split(",")))

    def google_analytics_credentials(self) -> dict[str, Any]:
        """The JSON of a service account or of an authorised user, given inline or as the path of a file.

        Raises:
            UsageError: it is not set, or is no JSON; nothing of it is shown.
        """
        name, given = "SOURCES__GOOGLE_ANALYTICS__CREDENTIALS", self._google_analytics().strip()
        if not given:
            mend = "export the JSON of a service account's key, or the path of that file, or write it into .env"
            raise UsageError(f"{name} is not set: nobody to read Google Analytics as.", mend=mend)
        try:
            content = json.loads(given if given.startswith("{") else Path(given).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict):
            raise UsageError(f"{name} is neither JSON nor a file that holds it.", mend="give the whole JSON on one line, or the path of its file")
        return content

    def _google_analytics(self) -> str:
        given = self.sources.google_analytics.credentials
        return given.get_secret_value() if given else ""

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


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
def demo_values(home: Path) -> dict[str, str]:
    """The settings that the demo company of a home left for the warehouse; none where there is no demo."""
    from dotenv import dotenv_values

    file = demo_env_file(home)
    return {name: value for name, value in dotenv_values(file).items() if value} if file.exists() else {}


def _default(model: type[BaseSettings], name: str) -> str | None:
    """The default of a setting by its name in the environment (`sources__stripe__base_url`), as text."""
    first, *rest = name.split("__")
    value = model.model_fields[first].default if first in model.model_fields else None
    for part in rest:
        value = getattr(value, part, None)
    return None if value is None else str(value)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


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
    demo_values.cache_clear()


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
    secrets = (now.motherduck_token, now.state_credentials, now.sources.postgres.credentials, now.sources.stripe.stripe_secret_key, now.privacy.hmac_key)
    given = [secret.get_secret_value() for secret in secrets if secret is not None and secret.get_secret_value()]
    webhooks = now.sources.stripe.webhook_secrets
    given += _parts(webhooks.get_secret_value()) if webhooks else []
    given += _secrets_of_json(now.sources.google_analytics.credentials)
    return [*given, *(value for value in [os.environ.get("PGPASSWORD", "")] if len(value) > 3)]  # where tokens are given


def _secrets_of_json(given: SecretStr | None) -> list[str]:
    """What must not be shown of a JSON that was given inline."""
    try:
        content = json.loads(given.get_secret_value()) if given else {}
    except ValueError:  # the path of a file
        return []
    return [value for name, value in content.items() if name in _SECRETS_OF_GOOGLE and isinstance(value, str)] if isinstance(content, dict) else []


def _say(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    name = location[0] if location[0].isupper() else "__".join(location).upper()
    may_be_shown = name.startswith("WAREHOUSE_") and "CREDENTIALS" not in name  # whatever else is set may be a secret
    found = f" (found {problem['input']!r})" if may_be_shown else ""
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a setting{found}"
    return f"{name}: {problem['msg']}{found}"
