"""Pseudonyms: what stands in the warehouse in place of personal data, as SQL that runs while rows stream through DuckDB."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from privacy import keys
from privacy.free_text import FUNCTION as SCRUB
from privacy.policy import EMAIL_VALUE, SSN_VALUE, ColumnRule, policy
from warehouse.errors import UsageError
from warehouse.settings import settings
from warehouse.sql import literal

KEY_ID_COLUMN = "_privacy_key_id"
"""Beside every keyed hash: which key made it, so that keys can be changed."""

PERSONAL_ERROR = "undeclared personal data"
"""How the error of a stream begins that met personal data in a column the policy does not list; then class and column."""

E164, SEAL = "e164_number", "seal_value"
"""What SQL calls the functions that normalise a telephone number and seal a value, where `privacy.functions.bind` was called."""

_EMAIL_SHAPE = r"[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+"
_SPACE = "chr(32) || chr(9) || chr(10) || chr(11) || chr(12) || chr(13)"


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
        name in the warehouse -> SQL; an `hmac` column becomes `<column>_hash` (64 hex digits; emails and telephone numbers also
        get `is_<column>_valid`), `mask` becomes `<column>_masked`, `redact` becomes `<column>_redacted`, `scrub` keeps its name,
        `drop` leaves the column out, `encrypt` becomes `<column>_sealed`, bytes that the vault opens. `_privacy_key_id` names the
        key where there is a keyed hash. A null stays null.

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
    for name, rule in rules.items():
        if rule.action == "encrypt":
            protected[f"{name}_sealed"] = _sealed(source, table, name, columns[name], protected)
    if not any(rule.action == "hmac" or (rule.action == "encrypt" and "$hmac" in protected[f"{name}_sealed"]) for name, rule in rules.items()):
        return Protected(protected, origins=origins)
    key_id = settings().privacy.hmac_key_id
    return Protected({**protected, KEY_ID_COLUMN: literal(key_id)}, parameters(), origins)


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


def hmac_parameters(key: bytes, level: str = "") -> dict[str, bytes]:
    """The two padded keys of HMAC-SHA256, to be bound as `$hmac_inner` and `$hmac_outer`."""
    inner, outer = keys.padded(key)
    return {f"hmac_inner{level}": inner, f"hmac_outer{level}": outer}


def parameters() -> dict[str, bytes]:
    """What SQL made of `keyed_hash` needs bound."""
    found = hmac_parameters(settings().hmac_key())
    for level, (_, key) in enumerate(keys.before(), start=1):
        found |= hmac_parameters(key, f"_{level}")
    return found


def keyed_hash(text: str) -> str:
    """SQL for the keyed hash of a text, 64 hex digits, with the bound values of `parameters`: HMAC-SHA256 with each key in force in turn."""
    for level in [*(f"_{number}" for number in range(1, len(keys.before()) + 1)), ""]:
        text = f"sha256($hmac_outer{level}::BLOB || unhex(sha256($hmac_inner{level}::BLOB || encode({text}))))"
    return text


def normalised_email(text: str) -> str:
    """SQL for an email as it is compared: without surrounding space, in lower case."""
    # Trimming costs more than hashing's preparation; what neither begins nor ends with a control character or a space is spared it.
    return f"CASE WHEN ({text})[1] > chr(32) AND ({text})[-1] > chr(32) THEN lower({text}) ELSE lower(trim({text}, {_SPACE})) END"


def _replaced(name: str, rule: ColumnRule, expression: str) -> dict[str, str]:
    text = f"({expression})::VARCHAR"
    if rule.action == "keep":
        return {name: expression}
    if rule.action == "scrub":
        return {name: f"{SCRUB}({text})"}  # a connection that does not offer the function (privacy.free_text.bind) fails here
    if rule.action == "drop":
        return {}
    if rule.action == "encrypt":
        return {f"{name}_sealed": "error('it is sealed by its row')"}
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
    trimmed = f"trim({text}, {_SPACE})"
    if rule.personal_class == "phone":
        number = f"nullif({E164}({trimmed}), '')"
        valid = f"CASE WHEN {text} IS NULL THEN NULL ELSE {number} IS NOT NULL END"
        return {f"{name}_hash": keyed_hash(f"coalesce({number}, {trimmed})"), f"is_{name}_valid": valid}
    return {f"{name}_hash": keyed_hash(trimmed)}


def _sealed(source: str, table: str, name: str, expression: str, protected: Mapping[str, str]) -> str:
    """SQL that seals a value under the keys of the persons of its row, told by the columns as the warehouse has them."""
    rule = policy().subjects[f"{source}.{table}"]
    persons = {**({rule.key: rule.person} if rule.person else {}), **({rule.email: "email"} if rule.person and rule.email else {}), **rule.of, **rule.within}
    told = []
    for column, kind in persons.items():
        held, _, path = column.partition(".")
        if held in protected:
            value = f"json_extract_string({protected[held]}, {literal('$.' + path)})" if path else f"({protected[held]})::VARCHAR"
            told.append(f"{literal(kind + ':')} || {value}")
    if not told:
        raise UsageError(
            f"privacy/policy.yaml: {source}.{table}.{name} is encrypted, and the table has none of the columns that say whose its rows are.",
            mend=f"correct `subjects.{source}.{table}`: {', '.join(persons)}",
        )
    return f"{SEAL}({literal(f'{source}.{table}.{name}')}, [{', '.join(told)}], ({expression})::VARCHAR)"


def _watched(name: str, expression: str) -> str:
    """SQL that gives the value, unless it is personal: then the query fails with the column's name, never with the value."""
    column = name.replace("'", "''")
    return (
        f"CASE WHEN contains({expression}, '@') AND regexp_matches({expression}, '{EMAIL_VALUE}') THEN error('{PERSONAL_ERROR}: email in {column}') "
        f"WHEN contains({expression}, '-') AND regexp_matches({expression}, '{SSN_VALUE}') THEN error('{PERSONAL_ERROR}: ssn in {column}') "
        f"ELSE {expression} END"
    )
