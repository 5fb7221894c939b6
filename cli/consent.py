"""`warehouse privacy consent`: what persons agreed to, and took back. Rooms are imported when their verb is called."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.restore import Instant

if TYPE_CHECKING:
    from privacy.consent import Consent


def _words(verb: Callable[..., None]) -> Callable[..., None]:
    """The options by which somebody's words are told."""
    options = (
        click.option("--subject", required=True, metavar="KIND:KEY", help="user:42, email:…, stripe:cus_… or zendesk:…"),
        click.option("--purpose", required=True, help="One that privacy/policy.yaml declares under consent."),
        click.option("--source", required=True, help="Where it was said: the form, the call, the letter."),
        click.option("--version", help="Of the words that were agreed to; those in force unless given."),
        click.option("--at", type=Instant(), help="When it was said (UTC); now unless given."),
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


@click.group(short_help="Record what persons agree to, and take back.")
def consent() -> None:
    """Record what persons agree to, and take back: a ledger of keyed hashes that only grows. The next run goes by it."""


@consent.command(short_help="A person agrees.")
@_words
def record(subject: str, purpose: str, source: str, version: str | None, at: datetime | None) -> None:
    """Record that a person agrees."""
    _say(subject, purpose, source, version, at, is_given=True)


@consent.command(short_help="A person takes it back.")
@_words
def withdraw(subject: str, purpose: str, source: str, version: str | None, at: datetime | None) -> None:
    """Record that a person takes it back; the next run leaves the person out of what is for that purpose."""
    _say(subject, purpose, source, version, at, is_given=False)


@consent.command("import", short_help="Record a file of them.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_(file: Path) -> None:
    """Record a file: CSV with a header (.csv) or JSON, one object a line, with subject, purpose, given, source, at and, if wanted, version.

    One bad line refuses the whole file.
    """
    from privacy.consent import read

    _record(read(file))


def _say(subject: str, purpose: str, source: str, version: str | None, at: datetime | None, *, is_given: bool) -> None:
    from privacy.consent import say
    from privacy.subjects import parse

    _record([say(parse(subject), purpose, is_given=is_given, source=source, version=version, at=at)])


def _record(consents: "list[Consent]") -> None:
    from cli.run import recorded
    from privacy import audit
    from privacy import consent as room
    from privacy.subjects import tag
    from warehouse.console import say

    with recorded("privacy consent") as run, run.step("consent") as step:
        step.rows_out = room.record(consents)
        audit.note("consent", sorted({tag(one.subject.kind, one.subject.value) for one in consents}) if len(consents) == 1 else [], words=len(consents))
    say(f"recorded: {step.rows_out}; the next `warehouse run` goes by it")
