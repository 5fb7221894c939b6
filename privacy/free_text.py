"""Free text without the numbers and addresses of people in it: emails, cards, social security and telephone numbers.

Names and postal addresses cannot be told from other words; a text that must not hold them is declared `redact` or `drop`.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from privacy.policy import SSN_VALUE, kind_by_name, policy

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

REDACTED = "[redacted]"
FUNCTION = "scrub_text"
"""What SQL calls it, where `bind` was called."""

_DIGIT = re.compile(r"[0-9]")
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
"""Wider than what stops a load: letters of every script, and bounded, so that a long text without spaces takes no time."""
_CARD = re.compile(r"(?<![0-9])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])")
_SSN = re.compile(SSN_VALUE)
_SPACED_SSN = re.compile(r"(?<![0-9.])([0-9]{3})([ .])([0-9]{2})\2([0-9]{4})(?![0-9])")
_NAMED_SSN = re.compile(r"(?i)((?:ssn|social security)\D{0,20})[0-9]{3}[ .-]?[0-9]{2}[ .-]?[0-9]{4}(?![0-9])")
_ENOUGH_DIGITS = re.compile(r"(?:[0-9][^0-9\n]{0,3}){6}[0-9]")
"""The shortest telephone number that is looked for; most texts with digits have fewer in a row."""


def scrub(text: str, regions: Sequence[str] | None = None) -> str:
    """A text with `[email]`, `[card]`, `[ssn]` and `[phone]` in place of what was one.

    Args:
        regions: ISO codes of the countries whose numbers are recognised also without a `+`; the policy's when left out.
    """
    has_digit = _DIGIT.search(text) is not None
    if "@" in text:
        text = _EMAIL.sub("[email]", text)
    if not has_digit:
        return text
    text = _CARD.sub(_without_card, text)
    text = _SSN.sub(lambda found: f"{found.group(1)}[ssn]{found.group(2)}", text)
    text = _NAMED_SSN.sub(r"\1[ssn]", text)
    text = _SPACED_SSN.sub(_without_ssn, text)
    return _without_phones(text, policy().phone_regions if regions is None else regions) if _ENOUGH_DIGITS.search(text) else text


def scrub_identifiers(text: str) -> str:
    """A short text that is no prose (an id, a tag) without emails and social security numbers; long numbers in it stay."""
    if "@" in text:
        text = _EMAIL.sub("[email]", text)
    return _SSN.sub(lambda found: f"{found.group(1)}[ssn]{found.group(2)}", text) if "-" in text else text


def scrub_tree(tree: Any) -> Any:
    """A tree of JSON with every text in it scrubbed, and with `[redacted]` under each key whose name looks personal."""
    if isinstance(tree, dict):
        return {key: REDACTED if value is not None and kind_by_name(str(key)) else scrub_tree(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [scrub_tree(one) for one in tree]
    return scrub(tree) if isinstance(tree, str) else tree


def bind(connection: "DuckDBPyConnection", source: str) -> None:
    """Offer SQL the function by which columns of a source declared `scrub` are scrubbed, if there are any; outside of a transaction."""
    if not any(rule.action == "scrub" for table, rules in policy().columns.items() if table.startswith(f"{source}.") for rule in rules.values()):
        return
    import pyarrow as pa
    from duckdb.func import ARROW

    def scrubbed(texts: Any) -> Any:  # DuckDB evaluates what is annotated, where pyarrow has no name
        return pa.array([None if text is None else scrub(text) for text in texts.to_pylist()], pa.string())

    connection.create_function(FUNCTION, scrubbed, ["VARCHAR"], "VARCHAR", type=ARROW)


def _without_card(found: "re.Match[str]") -> str:
    from stdnum import luhn

    return "[card]" if luhn.is_valid(re.sub(r"[ -]", "", found.group())) else found.group()


def _without_ssn(found: "re.Match[str]") -> str:
    from stdnum.us import ssn

    return "[ssn]" if ssn.is_valid("-".join(found.group(1, 3, 4))) else found.group()


def _without_phones(text: str, regions: Sequence[str]) -> str:
    """Numbers with a `+` when they may be one, others when they are valid in one of the countries."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    for region, leniency in [*((None, Leniency.POSSIBLE) for _ in range("+" in text)), *((region, Leniency.VALID) for region in regions)]:
        for found in reversed(list(PhoneNumberMatcher(text, region, leniency))):
            text = f"{text[: found.start]}[phone]{text[found.end :]}"
    return text
