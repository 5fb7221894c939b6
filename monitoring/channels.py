"""The channels: PagerDuty's Events v2, Slack, and email. Each sends one alert, and can be asked to send it again without doubling it."""

from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from monitoring.messages import Message
from warehouse import clock
from warehouse.alert_settings import AlertSettings, Channel
from warehouse.errors import scrub
from warehouse.settings import settings

TIMEOUT = 15
"""Seconds that a channel has to answer."""
EVENT_TYPE = "warehouse_alert"
SLACK_REFUSES = {
    "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "channel_not_found", "not_in_channel", "is_archived", "missing_scope",
    "invalid_blocks", "msg_too_long", "no_permission", "message_not_found", "cant_update_message", "edit_window_closed",
}  # fmt: skip


class Unreachable(Exception):
    """The channel did not take the alert now; it may later, and nobody knows whether it did. `after` is when it wants to be asked again, in seconds."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(scrub(why))
        self.after = after


class Refused(Exception):
    """The channel will not take the alert: a wrong key, or no right to it."""


@dataclass(frozen=True)
class Alert:
    """What is to be sent.

    Attributes:
        alert_id: stays the same however often it is tried.
        action: `open` and `escalate` tell of an incident, `update` and `resolve` change what was told.
        may_be_sent: whether an earlier try may have reached the channel.
        opened: the receipt of what told of the incident first, in this channel.
    """

    alert_id: str
    channel: Channel
    action: str
    message: Message
    may_be_sent: bool = False
    opened: dict[str, str] | None = None


def send(alert: Alert) -> dict[str, str]:
    """Send an alert through its channel.

    Returns:
        the receipt: what the channel calls it.

    Raises:
        Unreachable, Refused.
    """
    given = settings().alerts
    try:
        return {"page": _page, "slack": _slack, "email": _email}[alert.channel](alert, given)
    except OSError as error:  # sockets, DNS, TLS, timeouts; requests' own errors are among them
        raise Unreachable(f"{type(error).__name__}: {error}") from None


def heartbeat() -> None:
    """Tell whoever waits for it that a run has succeeded; nothing when nobody does.

    Raises:
        Unreachable: it could not be told.
    """
    url = settings().alerts.heartbeat_url
    if url is None or not url.get_secret_value():
        return
    import requests

    try:
        answer = requests.get(url.get_secret_value(), timeout=TIMEOUT)
    except requests.RequestException as error:
        raise Unreachable(type(error).__name__) from None
    if not answer.ok:
        raise Unreachable(f"answered {answer.status_code}")


def _page(alert: Alert, given: AlertSettings) -> dict[str, str]:
    import requests

    message = alert.message
    event: dict[str, Any] = {
        "routing_key": given.pagerduty_routing_key.get_secret_value() if given.pagerduty_routing_key else "",
        "event_action": "resolve" if alert.action == "resolve" else "trigger",
        "dedup_key": f"warehouse-{message.key}",  # the same for every try and for the resolution: PagerDuty makes one of them
    }
    if alert.action != "resolve":
        event["client"] = "warehouse"
        event["links"] = [{"href": message.runbook, "text": "What to do"}] if "://" in message.runbook else []
        event["payload"] = {
            "summary": message.title[:1024],
            "source": "warehouse",
            "severity": "critical" if message.severity == "error" else "warning",
            "custom_details": {"what": message.what, "since": message.since, "affected marts": message.affected, "query": message.query,
                               "runbook": message.runbook, "owner": message.owner},
        }  # fmt: skip
    answer = requests.post(f"{given.pagerduty_url.rstrip('/')}/v2/enqueue", json=event, timeout=TIMEOUT)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Unreachable(f"PagerDuty answered {answer.status_code}", _seconds(answer.headers.get("Retry-After")))
    if not answer.ok:
        raise Refused(scrub(f"PagerDuty answered {answer.status_code}: {answer.text[:200]}"))
    return {"dedup_key": event["dedup_key"]}


def _slack(alert: Alert, given: AlertSettings) -> dict[str, str]:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError, SlackClientError

    token = given.slack_token.get_secret_value() if given.slack_token else ""
    # Its own handler tries a broken connection again without asking whether the message arrived.
    client = WebClient(token=token, base_url=given.slack_url, timeout=TIMEOUT, retry_handlers=[])
    channel = given.slack_channel or ""
    shown: dict[str, Any] = {"text": _head(alert.message), "blocks": _blocks(alert.message)}
    marked = {"event_type": EVENT_TYPE, "event_payload": {"alert_id": alert.alert_id}}
    try:
        if alert.action in ("open", "escalate"):
            known = _posted(client, channel, alert.alert_id, None) if alert.may_be_sent else None
            return known or _receipt(client.chat_postMessage(channel=channel, metadata=marked, unfurl_links=False, **shown))
        opened = alert.opened or {}
        client.chat_update(channel=opened["channel"], ts=opened["ts"], **shown)
        if alert.action == "resolve" and not (alert.may_be_sent and _posted(client, opened["channel"], alert.alert_id, opened["ts"])):
            text = f"Resolved {alert.message.resolved_at}."
            client.chat_postMessage(channel=opened["channel"], thread_ts=opened["ts"], text=text, metadata=marked)
        return opened
    except SlackApiError as error:
        code = str(error.response.get("error", "")) if not isinstance(error.response, str) else error.response
        if code in SLACK_REFUSES:
            raise Refused(f"Slack answered {code}") from None
        headers = getattr(error.response, "headers", {}) or {}
        raise Unreachable(f"Slack answered {code or 'an error'}", _seconds(headers.get("Retry-After", headers.get("retry-after")))) from None
    except SlackClientError as error:
        raise Unreachable(f"Slack: {type(error).__name__}") from None


def _posted(client: Any, channel: str, alert_id: str, thread: str | None) -> dict[str, str] | None:
    """What an earlier try left in the channel, told by the alert's id in its metadata. Who may not read the channel sends again."""
    from slack_sdk.errors import SlackApiError

    try:
        if thread:
            answer = client.conversations_replies(channel=channel, ts=thread, include_all_metadata=True, limit=100)
        else:
            answer = client.conversations_history(channel=channel, include_all_metadata=True, limit=100)
    except SlackApiError as error:
        if str(error.response.get("error")) in SLACK_REFUSES:
            return None
        raise
    for one in answer["messages"]:
        if one.get("metadata", {}).get("event_payload", {}).get("alert_id") == alert_id:
            return {"channel": channel, "ts": one["ts"]}
    return None


def _receipt(answer: Any) -> dict[str, str]:
    return {"channel": answer["channel"], "ts": answer["ts"]}


def _blocks(message: Message) -> list[dict[str, Any]]:
    """Block Kit: a header, what is wrong, the facts side by side, the query, the page."""

    def section(text: str) -> dict[str, Any]:
        return {"type": "section", "text": {"type": "mrkdwn", "text": text[:3000]}}

    facts = [f"*Since*\n{message.since}"]
    facts += [f"*Resolved*\n{message.resolved_at}"] if message.resolved_at else []
    facts += [f"*Affected marts*\n{_escaped(', '.join(message.affected))}"] if message.affected else []
    facts += [f"*Owner*\n{_escaped(message.owner)}"] if message.owner else []
    link = f"<{message.runbook}|What to do>" if "://" in message.runbook else f"What to do: `{message.runbook}`"
    return [
        {"type": "header", "text": {"type": "plain_text", "text": _head(message)[:150], "emoji": True}},
        section("\n".join(f"• {_escaped(line)}" for line in message.what)),
        {"type": "section", "fields": [{"type": "mrkdwn", "text": fact[:2000]} for fact in facts]},
        *([section(f"```{_escaped(message.query)[:2900]}```")] if message.query else []),
        {"type": "context", "elements": [{"type": "mrkdwn", "text": link}]},
    ]


def _head(message: Message) -> str:
    mark = ":white_check_mark: Resolved: " if message.resolved_at else ":rotating_light: " if message.severity == "error" else ":warning: "
    return mark + message.title


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _email(alert: Alert, given: AlertSettings) -> dict[str, str]:
    import smtplib
    import ssl

    message, sender = EmailMessage(), given.email_from or ""
    domain = sender.rpartition("@")[2].strip("> ")
    number = f"<{alert.alert_id.replace(':', '.')}@{domain}>"  # the same for every try: mail systems show one of them
    message["From"], message["To"], message["Date"], message["Message-ID"] = sender, ", ".join(given.recipients), format_datetime(clock.now()), number
    message["Subject"] = ("Resolved: " if alert.message.resolved_at else "") + alert.message.title
    message["Auto-Submitted"] = "auto-generated"
    if alert.opened:
        message["In-Reply-To"] = message["References"] = alert.opened["message_id"]
    message.set_content("\n".join((alert.message.title, "", *alert.message.lines())) + "\n")
    parts = urlsplit(given.smtp_url.get_secret_value() if given.smtp_url else "")
    host, secure, trusted = parts.hostname or "", parts.scheme == "smtps", ssl.create_default_context()
    port = parts.port or (465 if secure else 587)
    try:
        server = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=trusted) if secure else smtplib.SMTP(host, port, timeout=TIMEOUT)
        try:
            server.ehlo()
            if not secure and server.has_extn("starttls"):
                server.starttls(context=trusted)
                secure = True
            if parts.username:
                if not secure and host not in ("localhost", "127.0.0.1", "::1"):
                    raise Refused("the mail server offers no TLS; a password is not sent in the clear")
                server.login(unquote(parts.username), unquote(parts.password or ""))
            refused = server.send_message(message)
        finally:
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise _mail_error(max(codes, default=550)) from None
    except smtplib.SMTPResponseException as error:
        raise _mail_error(error.smtp_code) from None
    except smtplib.SMTPException as error:
        raise Unreachable(f"the mail server: {type(error).__name__}") from None
    return {"message_id": number, **({"refused_recipients": str(len(refused))} if refused else {})}


def _mail_error(code: int) -> Exception:
    what = f"the mail server answered {code}"
    return Refused(what) if code >= 500 else Unreachable(what)


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.replace(".", "", 1).isdigit() else None
