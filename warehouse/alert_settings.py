"""The settings of alerts: how to reach each channel. A channel without its secret is not configured and is left out."""

from email.utils import parseaddr
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

Channel = Literal["page", "slack", "email"]


class AlertSettings(BaseModel):
    """PagerDuty, Slack, a mail server, and what waits for a sign of life after each run that succeeded."""

    model_config = ConfigDict(extra="forbid")
    pagerduty_routing_key: SecretStr | None = None
    pagerduty_url: str = "https://events.pagerduty.com"
    slack_token: SecretStr | None = None
    slack_channel: str | None = None
    slack_url: str = "https://slack.com/api/"
    smtp_url: SecretStr | None = None
    email_from: str | None = None
    email_to: str | None = None
    heartbeat_url: SecretStr | None = None

    @field_validator("smtp_url")
    @classmethod
    def _a_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(value.get_secret_value()) if value else None
        if parts is not None and parts.geturl() and (parts.scheme not in ("smtp", "smtps") or not parts.hostname):
            raise ValueError("must be smtp://user:password@server:587 or smtps://user:password@server:465")
        return value

    @field_validator("email_from", "email_to")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        if value and not all("@" in parseaddr(one)[1] for one in value.split(",")):
            raise ValueError("must be an email address; several with a comma between")
        return value

    @property
    def recipients(self) -> list[str]:
        """Who gets the emails."""
        return [one.strip() for one in (self.email_to or "").split(",") if one.strip()]

    def lacks(self, channel: Channel) -> list[str]:
        """The settings that a channel needs and that are not set."""
        needed: dict[str, tuple[str, ...]] = {
            "page": ("pagerduty_routing_key",),
            "slack": ("slack_token", "slack_channel"),
            "email": ("smtp_url", "email_from", "email_to"),
        }
        return [f"ALERTS__{name.upper()}" for name in needed[channel] if not _given(getattr(self, name))]

    def is_configured(self, channel: Channel) -> bool:
        """Whether a channel has all it needs."""
        return not self.lacks(channel)

    def secrets(self) -> list[str]:
        """Every secret that is set."""
        return [_given(secret) for secret in (self.pagerduty_routing_key, self.slack_token, self.smtp_url, self.heartbeat_url) if _given(secret)]


def _given(value: SecretStr | str | None) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value or ""
