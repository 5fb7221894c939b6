"""Pseudonyms: what stands in the warehouse in place of personal data, as SQL that runs while rows stream through DuckDB."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from privacy.free_text import FUNCTION as SCRUB
from privacy.policy import EMAIL_VALUE, SSN_VALUE, ColumnRule, policy
from warehouse.errors import UsageError
from warehouse.settings import settings
from warehouse.sql import literal

KEY_ID_COLUMN = "_privacy_key_id"
"""Beside every keyed hash: which key made it, so that keys can be changed."""

PERSONAL_ERROR = "undeclared personal data"
"""How the error of a stream begins that met personal data in a column the policy does not list; then class and column."""

_EMAIL_SHAPE = r"[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+"
_SPACE = "chr(32) || chr(9) || chr(10) || chr(11) || chr(12) || chr(13)"
_BLOCK = 64


@dataclass(frozen=True)
class Protected:
    """The columns of a SELECT with personal data replaced, and the values to bind (never in SQL text).

    `origins` says of each column which of the source's it is made of.
    """

    columns: dict[str, str]
    parameters: dict[str, bytes] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def protect(source: str, table: str, columns: Mapping[str, str], *, texts: Sequence[str]) -> Protected:
    """Replace each personal column of a table as the policy says; other columns stay as they are.

    Args:
        columns: name in the source -> DuckDB SQL that gives its value.
        texts: the columns that hold text; those the policy does not list are looked through, value by value, and a value
            that is or contains an email or an SSN makes the query fail (`PERSONAL_ERROR`) before it is written anywhere.

    Returns:
        name in the warehouse -> SQL; an `hmac` column becomes `<column>_hash` (64 hex digits; emails also get
        `is_<column>_valid`), `mask` becomes `<column>_masked`, `redact` becomes `<column>_redacted`, `scrub` keeps its
        name, `drop` leaves the column out. `_privacy_key_id` names the key where there is a keyed hash. A null stays null.

    Raises:
        UsageError: the key is not set, or a rule names a column that the source does not have.
    """
    rules = policy().rules(source, table)
    missing = sorted(set(rules) - set(columns))
    if missing:
        raise UsageError(
            f"privacy/policy.yaml declares {source}.{table}.{missing[0]}, which the source does not have; "
            "if it was renamed, its new name would be loaded in the clear.",
            mend="declare the new name, or remove the old one from the policy",
        )
    protected: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name, expression in columns.items():
        rule = rules.get(name)
        replaced = _replaced(name, rule, expression) if rule else {name: _watched(name, expression) if name in texts else expression}
        protected.update(replaced)
        origins.update(dict.fromkeys(replaced, name))
    if not any(rule.action == "hmac" for rule in rules.values()):
        return Protected(protected, origins=origins)
    key_id = settings().privacy.hmac_key_id
    return Protected({**protected, KEY_ID_COLUMN: literal(key_id)}, hmac_parameters(settings().hmac_key()), origins)


def keyed_name(source: str, table: str, column: str) -> str:
    """The name in the warehouse of a column that identifies rows, by which they are merged."""
    rule = policy().rules(source, table).get(column)
    if rule is None or rule.action == "keep":
        return column
    if rule.action == "hmac":
        return f"{column}_hash"
    raise UsageError(
        f"{source}.{table}.{column} is part of the primary key, and privacy/policy.yaml says {rule.action}: rows could not be told apart.",
        mend="declare `action: hmac` for it, or another primary key",
    )


def held_names(column: str, rule: ColumnRule) -> list[str]:
    """The names in the warehouse of what a column becomes: `email` -> `email_hash`, `is_email_valid`; none when it is dropped."""
    return list(_replaced(column, rule, column))


def hmac_parameters(key: bytes) -> dict[str, bytes]:
    """The two padded keys of HMAC-SHA256 (RFC 2104), to be bound as `$hmac_inner` and `$hmac_outer`."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return {"hmac_inner": bytes(byte ^ 0x36 for byte in block), "hmac_outer": bytes(byte ^ 0x5C for byte in block)}


def keyed_hash(text: str) -> str:
    """SQL for the HMAC-SHA256 of a text, 64 hex digits, with the bound parameters of `hmac_parameters`."""
    return f"sha256($hmac_outer::BLOB || unhex(sha256($hmac_inner::BLOB || encode({text}))))"


def normalised_email(text: str) -> str:
    """SQL for an email as it is compared: without surrounding space, in lower case."""
    return f"lower(trim({text}, {_SPACE}))"


def _replaced(name: str, rule: ColumnRule, expression: str) -> dict[str, str]:
    text = f"({expression})::VARCHAR"
    if rule.action == "keep":
        return {name: expression}
    if rule.action == "scrub":
        return {name: f"{SCRUB}({text})"}  # a connection that does not offer the function (privacy.free_text.bind) fails here
    if rule.action == "drop":
        return {}
    if rule.action == "redact":
        return {f"{name}_redacted": f"CASE WHEN {text} IS NULL THEN NULL ELSE '[redacted]' END"}
    if rule.action == "mask":
        digits = f"regexp_replace({text}, '[^0-9]', '', 'g')"
        # Two digits of a very short number would be most of it.
        tail = f"CASE WHEN {digits} IS NULL THEN NULL WHEN length({digits}) > 4 THEN right({digits}, 2) ELSE '' END"
        return {f"{name}_masked": f"'********' || {tail}"}
    if rule.personal_class == "email":
        return {
            f"{name}_hash": keyed_hash(normalised_email(text)),
            f"is_{name}_valid": f"regexp_full_match(trim({text}, {_SPACE}), '{_EMAIL_SHAPE}')",
        }
    return {f"{name}_hash": keyed_hash(f"trim({text}, {_SPACE})")}


def _watched(name: str, expression: str) -> str:
    """SQL that gives the value, unless it is personal: then the query fails with the column's name, never with the value."""
    column = name.replace("'", "''")
    return (
        f"CASE WHEN contains({expression}, '@') AND regexp_matches({expression}, '{EMAIL_VALUE}') THEN error('{PERSONAL_ERROR}: email in {column}') "
        f"WHEN contains({expression}, '-') AND regexp_matches({expression}, '{SSN_VALUE}') THEN error('{PERSONAL_ERROR}: ssn in {column}') "
        f"ELSE {expression} END"
    )
