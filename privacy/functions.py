"""What SQL needs of Python where a policy asks for it: free text scrubbed, telephone numbers normalised, values sealed."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privacy import free_text
from privacy.policy import ColumnRule, policy
from privacy.pseudonyms import E164, SEAL

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NUMBERS_REMEMBERED = 100_000


def bind(connection: "DuckDBPyConnection", source: str) -> None:
    """Offer a connection the functions by which columns of a source are protected, as far as the policy uses them; outside of a transaction."""
    free_text.bind(connection, source)
    rules = [rule for table, columns in policy().columns.items() if table.startswith(f"{source}.") for rule in columns.values()]
    if any(is_number(rule) for rule in rules):
        _bind_e164(connection)
    if any(rule.action == "encrypt" for rule in rules):
        _bind_seal(connection)


def is_number(rule: ColumnRule) -> bool:
    """Whether a column is hashed as a telephone number."""
    return rule.personal_class == "phone" and rule.action == "hmac"


@lru_cache(maxsize=_NUMBERS_REMEMBERED)
def e164(text: str, region: str) -> str:
    """A telephone number as it is dialled from anywhere, +15550104477; empty for what can be none.

    Args:
        region: ISO code of the country whose number it is when it begins with no `+`.
    """
    from phonenumbers import NumberParseException, PhoneNumberFormat, format_number, is_possible_number, parse

    try:
        number = parse(text, region)
    except NumberParseException:
        return ""
    return format_number(number, PhoneNumberFormat.E164) if is_possible_number(number) else ""


def _bind_e164(connection: "DuckDBPyConnection") -> None:
    import pyarrow as pa
    from duckdb.func import ARROW

    region = policy().phone_regions[0]

    def numbers(texts: Any) -> Any:
        return pa.array([None if text is None else e164(text, region) for text in texts.to_pylist()], pa.string())

    connection.create_function(E164, numbers, ["VARCHAR"], "VARCHAR", type=ARROW)


def _bind_seal(connection: "DuckDBPyConnection") -> None:
    import pyarrow as pa
    from duckdb.func import ARROW, SPECIAL

    from privacy.vault import sealed_values

    def sealed(bound: Any, subjects: Any, values: Any) -> Any:
        return pa.array(sealed_values(bound.to_pylist(), subjects.to_pylist(), values.to_pylist()), pa.binary())

    connection.create_function(SEAL, sealed, ["VARCHAR", "VARCHAR[]", "VARCHAR"], "BLOB", type=ARROW, null_handling=SPECIAL)
