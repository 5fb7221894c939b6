"""A report as one HTML file that asks nothing of any other, and as JSON."""

import base64
import hashlib
import json
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from monitoring.report import ledgered, svg
from monitoring.report.facts import House, Report
from warehouse.errors import scrub

_HERE = Path(__file__).parent
_WORDS = {"well": "well", "warning": "look", "wrong": "wrong", "unknown": "unknown"}


def document(report: Report, house: House) -> str:
    """The whole page. It holds no script; its policy lets the browser load nothing and apply no style but its own."""
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    jinja = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"minute": _minute, "lasting": _length, "amount": svg.amount, "said": _said}
    jinja.globals |= {"svg": svg, "words": _WORDS, "link": lambda page: house.links.get(page, "")}
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    counts = Counter(one.state for one in report.contracts)
    return jinja.get_template("report.html").render(report=report, style=style, policy=policy, days=ledgered.DAYS, contract_counts=counts)


def as_json(report: Report) -> str:
    """The report as JSON: instants in ISO 8601 and UTC, lengths in seconds."""
    return json.dumps(asdict(report), indent=2, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat() if hasattr(value, "isoformat") else str(value)


def _said(text: object) -> str:
    """A text that came from outside of the page, without secrets and personal data."""
    return scrub(str(text))


def _minute(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else ""


def _length(length: timedelta | float | None) -> str:
    """A length of time as people say it."""
    if length is None:
        return ""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.0f} days"
