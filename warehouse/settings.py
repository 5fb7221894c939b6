"""Typed settings from the environment, `.env`, and (last) the demo company's own file.

Every setting is listed in `.env.example`; a test keeps the two together.
"""

import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from warehouse.alert_settings import AlertSettings
from warehouse.connection_string import hosts_of, secrets_of
from warehouse.errors import UsageError
from warehouse.source_settings import SourceAccess, SourcesSettings, demo_env_file, demo_values

ROOT = Path(__file__).resolve().parent.parent
"""The project's checkout: where declarations (YAML, SQL) stand."""

MINIMUM_KEY_LENGTH = 32


class PrivacySettings(BaseModel):
    """The key of the pseudonyms, and where it is kept who was erased.

    Losing the key breaks joins with new data and forgets who was erased; leaking it breaks the pseudonyms.

    Attributes:
        hmac_keys_before: the keys that were in force before, by their ids, the oldest first (docs/how-to/rotate-keys.md).
        erasures: folder of the ledger of erasures and the audit trail; outside of what backups restore.
        anchors: folder of their anchors; on another disk or machine, so that a cut tail is seen.
        vault: file with the keys of persons (docs/how-to/vault.md); outside of what backups keep.
        vault_key: what wraps those keys; it is given to who may read what is sealed, and to loads that seal.
        vault_key_before: the one before it, while `warehouse privacy rotate-vault-key` changes it.
        signing_key: the private key (Ed25519) that signs certificates of erasures; without it they are sealed alone.
    """

    model_config = ConfigDict(extra="forbid")
    hmac_key: SecretStr | None = None
    hmac_key_id: str = "k1"
    hmac_keys_before: dict[str, SecretStr] | None = None
    erasures: Path | None = None
    anchors: Path | None = None
    vault: Path | None = None
    vault_key: SecretStr | None = None
    vault_key_before: SecretStr | None = None
    signing_key: SecretStr | None = None

    @field_validator("hmac_key", "vault_key", "vault_key_before")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and 0 < len(value.get_secret_value()) < MINIMUM_KEY_LENGTH:
            raise ValueError(f"has {len(value.get_secret_value())} characters, at least {MINIMUM_KEY_LENGTH} are needed")
        return value

    @model_validator(mode="after")
    def _keys_are_told_apart(self) -> "PrivacySettings":
        if self.hmac_key_id in (self.hmac_keys_before or {}):
            raise ValueError(f"HMAC_KEY_ID is {self.hmac_key_id}, and a key before has that id too: give each new key a new id")
        for value in (self.hmac_keys_before or {}).values():
            self._long_enough(value)
        return self


class StoreCredentials(BaseModel):
    """The key of one of the stores of backups; what it may do is said in docs/how-to/back-up.md."""

    model_config = ConfigDict(extra="forbid")
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None

    @property
    def is_given(self) -> bool:
        """Whether both parts are set."""
        return all(part is not None and part.get_secret_value() for part in (self.access_key_id, self.secret_access_key))


class BackupSettings(BaseModel):
    """How backups are reached and opened. `identities` are private keys, or the path of their file: only to restore.

    `postgres` is the database that is dumped, where it is not the one that is loaded; `postgres_target` names the one that a
    restore makes.
    """

    model_config = ConfigDict(extra="forbid")
    policy: Path = Path("backup/policy.yaml")
    a: StoreCredentials = StoreCredentials()
    b: StoreCredentials = StoreCredentials()
    c: StoreCredentials = StoreCredentials()
    identities: SecretStr | None = None
    postgres: SecretStr | None = None
    postgres_target: SecretStr | None = None

    def secrets(self) -> list[str]:
        """What must not be shown."""
        given = (
            self.identities,
            self.postgres,
            self.postgres_target,
            *(part for store in (self.a, self.b, self.c) for part in (store.access_key_id, store.secret_access_key)),
        )
        found = [line for secret in given if secret for line in secret.get_secret_value().splitlines()]
        return [line.strip() for line in found if len(line.strip()) > 3]


class Settings(SourceAccess, BaseSettings):
    """All settings. The environment wins over `.env`, and `.env` over the demo company's file."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore", env_ignore_empty=True)

    home: Annotated[Path, Field(validation_alias="WAREHOUSE_HOME")] = Path("data")
    now: Annotated[datetime | None, Field(validation_alias="WAREHOUSE_NOW")] = None
    storage: Annotated[Literal["duckdb", "motherduck"], Field(validation_alias="WAREHOUSE_STORAGE")] = "duckdb"
    memory_limit: Annotated[str, Field(validation_alias="WAREHOUSE_MEMORY_LIMIT", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")] = "600MB"
    threads: Annotated[int, Field(validation_alias="WAREHOUSE_THREADS", ge=1, le=256)] = 2
    idle_runs_kept_days: Annotated[int, Field(validation_alias="WAREHOUSE_IDLE_RUNS_KEPT_DAYS", ge=1)] = 7
    metrics_file: Annotated[Path | None, Field(validation_alias="WAREHOUSE_METRICS_FILE")] = None
    otlp_endpoint: Annotated[str | None, Field(validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT", pattern=r"^https?://\S+$")] = None
    otlp_headers: Annotated[SecretStr | None, Field(validation_alias="OTEL_EXPORTER_OTLP_HEADERS")] = None
    motherduck_token: Annotated[SecretStr | None, Field(validation_alias="MOTHERDUCK_TOKEN")] = None
    motherduck_database: Annotated[str, Field(validation_alias="MOTHERDUCK_DATABASE", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "warehouse"
    state_credentials: Annotated[SecretStr | None, Field(validation_alias="WAREHOUSE_STATE_CREDENTIALS")] = None
    sources: SourcesSettings = SourcesSettings()
    privacy: PrivacySettings = PrivacySettings()
    backup: BackupSettings = BackupSettings()
    alerts: AlertSettings = AlertSettings()

    @field_validator("now")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("metrics_file")
    @classmethod
    def _is_collected(cls, value: Path | None) -> Path | None:
        if value is not None and (value.suffix != ".prom" or not value.is_absolute()):
            raise ValueError("must be an absolute path that ends in .prom: node_exporter reads no others")
        return value

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

    def otlp_secrets(self) -> list[str]:
        """The values of the headers that an OpenTelemetry collector asks for, as they are written and as they are meant."""
        given = self.otlp_headers.get_secret_value() if self.otlp_headers else ""
        values = [part.partition("=")[2].strip() for part in given.split(",")]
        return [one for value in values for one in {value, unquote(value)} if len(one) > 3]

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
    def erasures(self) -> Path:
        """Where it is kept who was erased, and who did what to whom."""
        return self.privacy.erasures or self.home / "erasures"

    @property
    def anchors(self) -> Path:
        """Where the heads of those records are noted."""
        return self.privacy.anchors or self.erasures

    @property
    def vault_file(self) -> Path:
        """The keys under which personal data of the vault is sealed; an SQLite file of its own."""
        return self.privacy.vault or self.home / "vault" / "keys.sqlite"

    def vault_key(self) -> bytes:
        """The master key of the vault.

        Raises:
            UsageError: it is not set.
        """
        apart = "`openssl rand -hex 32` makes one; keep a copy where your other secrets are, apart from the vault's own"
        return _required(self.privacy.vault_key, "PRIVACY__VAULT_KEY is not set: nothing can be sealed in the vault or read from it.", apart)

    def vault_key_before(self) -> bytes:
        """The master key that the vault had before.

        Raises:
            UsageError: it is not set.
        """
        return _required(self.privacy.vault_key_before, "PRIVACY__VAULT_KEY_BEFORE is not set.", "set the master key that the vault has had until now")

    def hmac_key(self) -> bytes:
        """The key of the pseudonyms.

        Raises:
            UsageError: it is not set.
        """
        mend = "`openssl rand -hex 32` makes one; keep a copy where your other secrets are"
        return _required(self.privacy.hmac_key, "PRIVACY__HMAC_KEY is not set: personal data cannot be pseudonymised, so nothing is loaded.", mend)


def _required(secret: SecretStr | None, what: str, mend: str) -> bytes:
    if secret is None or not secret.get_secret_value():
        raise UsageError(what, mend=mend)
    return secret.get_secret_value().encode()


def _home_from(*sources: PydanticBaseSettingsSource) -> Path:
    for source in sources:
        value = source().get("WAREHOUSE_HOME") or source().get("home")
        if value:
            path = Path(str(value))
            return (path if path.is_absolute() else ROOT / path).resolve()
    return (ROOT / "data").resolve()


def _default(model: type[BaseSettings], name: str) -> str | None:
    """The default of a setting by its name in the environment (`sources__stripe__base_url`), as text."""
    first, *rest = name.split("__")
    value = model.model_fields[first].default if first in model.model_fields else None
    for part in rest:
        value = getattr(value, part, None)
    return None if value is None else str(value)


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
        return [
            value
            for name, value in os.environ.items()
            if len(value) > 7 and any(word in name for word in ("CREDENTIALS", "TOKEN", "KEY", "SECRET", "SMTP_URL", "HEARTBEAT_URL"))
        ]
    own = (now.motherduck_token, now.state_credentials, now.privacy.hmac_key, now.privacy.vault_key, now.privacy.vault_key_before, now.privacy.signing_key)
    given = [secret.get_secret_value() for secret in own if secret is not None]
    given += [secret.get_secret_value() for secret in (now.privacy.hmac_keys_before or {}).values()]
    given = [*(value for value in given if value), *now.sources.secrets(), *now.backup.secrets(), *now.alerts.secrets(), *now.otlp_secrets()]
    return [*given, *(value for value in [os.environ.get("PGPASSWORD", "")] if len(value) > 3)]  # where tokens are given


def _say(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    name = location[0] if location[0].isupper() else "__".join(location).upper()
    may_be_shown = name.startswith("WAREHOUSE_") and "CREDENTIALS" not in name  # whatever else is set may be a secret
    found = f" (found {problem['input']!r})" if may_be_shown else ""
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a setting{found}"
    return f"{name}: {problem['msg']}{found}"
