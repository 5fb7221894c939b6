"""The settings of the sources: how to reach each of them, as whom, and what must not be mixed with the demo company."""

import json
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from warehouse.errors import UsageError
from warehouse.object_store import BucketSettings

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
    spool: BucketSettings = BucketSettings()


class GoogleAnalyticsSettings(BaseModel):
    """Which properties of Google Analytics 4 to read, as whom, and which days besides the newest."""

    model_config = ConfigDict(extra="forbid")
    property_ids: str | None = Field(default=None, pattern=r"^\s*\d+(\s*,\s*\d+)*\s*$")
    credentials: SecretStr | None = None
    base_url: str = "https://analyticsdata.googleapis.com"
    start_date: date | None = None
    end_date: date | None = None


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
    google_analytics: GoogleAnalyticsSettings = GoogleAnalyticsSettings()
    zendesk: ZendeskSettings = ZendeskSettings()

    def secrets(self) -> list[str]:
        """Every secret of a source that is set."""
        given = (self.postgres.credentials, self.stripe.stripe_secret_key, self.zendesk.client_secret, self.zendesk.api_token)
        found = [secret.get_secret_value() for secret in given if secret is not None and secret.get_secret_value()]
        webhooks = self.stripe.webhook_secrets
        found += self.stripe.spool.secrets()
        return found + (_parts(webhooks.get_secret_value()) if webhooks else []) + _secrets_of_json(self.google_analytics.credentials)


class SourceAccess:
    """What the sources ask of the settings; part of `Settings`, which holds the values."""

    sources: SourcesSettings
    home: Path

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
        """Whether a source has its secret; one without it is left out of `warehouse run`. PostgreSQL is never left out.

        Zendesk is left out only when none of its secrets is set: one that is missing beside others is to be told.
        """
        google, zendesk = self.sources.google_analytics, self.sources.zendesk
        has_secret = {
            "stripe": bool(self._stripe()),
            "google_analytics": bool(google.property_ids and (self._google_analytics() or google.base_url.startswith("http://"))),
            "zendesk": any((zendesk.client_id, zendesk.client_secret, zendesk.api_token)),
        }
        return has_secret.get(source, True)

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

    def spool_bucket(self, source: str) -> BucketSettings | None:
        """The bucket in which webhooks of a source are spooled; None where that is a folder of this machine.

        Raises:
            UsageError: only one half of its key is set, or the home is the demo company's, which would load and remove what is there.
        """
        given = self.sources.stripe.spool if source == "stripe" else None
        if given is None or not given.url:
            return None
        if bool(given.access_key_id) != bool(given.secret_access_key):
            missing = "SECRET_ACCESS_KEY" if given.access_key_id else "ACCESS_KEY_ID"
            raise UsageError(f"SOURCES__STRIPE__SPOOL__{missing} is not set.", mend="set both halves of the key, or neither to use the machine's role")
        if demo_env_file(self.home).exists():
            raise UsageError(
                f"WAREHOUSE_HOME ({self.home}) holds the demo company, but SOURCES__STRIPE__SPOOL__URL names a bucket.",
                mend="set WAREHOUSE_HOME to a new folder for your own company, or unset SOURCES__STRIPE__SPOOL__*",
            )
        return given

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
        self._require_unmixed("zendesk")
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


def demo_env_file(home: Path) -> Path:
    """Where the demo company leaves its connection string and key for this home."""
    return home / "demo" / "demo.env"


@lru_cache(maxsize=4)
def demo_values(home: Path) -> dict[str, str]:
    """The settings that the demo company of a home left for the warehouse; none where there is no demo."""
    from dotenv import dotenv_values

    file = demo_env_file(home)
    return {name: value for name, value in dotenv_values(file).items() if value} if file.exists() else {}


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _secrets_of_json(given: SecretStr | None) -> list[str]:
    """What must not be shown of a JSON that was given inline."""
    try:
        content = json.loads(given.get_secret_value()) if given else {}
    except ValueError:  # the path of a file
        return []
    return [value for name, value in content.items() if name in _SECRETS_OF_GOOGLE and isinstance(value, str)] if isinstance(content, dict) else []
