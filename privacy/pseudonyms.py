"""Pseudonyms: what stands in the warehouse in place of personal data."""

import hmac

import pyarrow as pa
import pyarrow.compute as pc

from privacy.policy import ColumnRule, policy
from warehouse.errors import UsageError
from warehouse.settings import settings

KEY_ID_COLUMN = "_privacy_key_id"
"""Beside every keyed hash: which key made it, so that keys can be changed."""

_EMAIL_SHAPE = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$"
_MASK = "********"


def pseudonymise(source: str, table: str, batch: pa.Table) -> pa.Table:
    """Replace each personal column of a batch as the policy says; other columns stay as they are.

    Args:
        batch: rows as they come from the source, any number.

    Returns:
        the same rows; an `hmac` column becomes `<column>_hash` (64 hex digits; emails also get `is_<column>_valid`),
        `mask` becomes `<column>_masked`, `redact` becomes `<column>_redacted`, `drop` leaves the column out.
        `_privacy_key_id` names the key where there is a keyed hash. A null stays null.

    Raises:
        UsageError: the key is not set, or a rule names a column that the source does not have.
    """
    rules = policy().rules(source, table)
    missing = sorted(set(rules) - set(batch.column_names))
    if missing:
        raise UsageError(
            f"privacy/policy.yaml declares {source}.{table}.{missing[0]}, which the source does not have; "
            "if it was renamed, its new name would be loaded in the clear.",
            mend="declare the new name, or remove the old one from the policy",
        )
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in batch.column_names:
        rule = rules.get(name)
        columns.update({name: batch.column(name)} if rule is None else _replaced(name, rule, batch.column(name)))
    if any(rule.action == "hmac" for rule in rules.values()):
        columns[KEY_ID_COLUMN] = pa.array([settings().privacy.hmac_key_id] * batch.num_rows, pa.string())
    return pa.table(columns)


def keyed_hashes(values: pa.ChunkedArray, key: bytes) -> pa.Array:
    """HMAC-SHA256 of each value (text, already normalised), 64 hex digits; null stays null. Each distinct value once."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    digest = hmac.digest
    hashes = pa.array([digest(key, value.encode(), "sha256").hex() for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.take(hashes, encoded.indices)


def normalised_email(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Emails as they are compared: without surrounding space, in lower case."""
    return pc.utf8_lower(pc.utf8_trim_whitespace(values))


def _replaced(name: str, rule: ColumnRule, values: pa.ChunkedArray) -> dict[str, pa.ChunkedArray | pa.Array]:
    if rule.action == "keep":
        return {name: values}
    if rule.action == "drop":
        return {}
    text = values if pa.types.is_string(values.type) else pc.cast(values, pa.string())
    if rule.action == "redact":
        return {f"{name}_redacted": pc.if_else(pc.is_valid(text), pa.scalar("[redacted]"), pa.scalar(None, pa.string()))}
    if rule.action == "mask":
        digits = pc.replace_substring_regex(text, r"[^0-9]", "")
        # Two digits of a very short number would be most of it.
        tail = pc.if_else(pc.greater(pc.utf8_length(digits), 4), pc.utf8_slice_codeunits(digits, start=-2), "")
        return {f"{name}_masked": pc.binary_join_element_wise(pa.scalar(_MASK), tail, pa.scalar(""))}
    if rule.personal_class == "email":
        return {
            f"{name}_hash": keyed_hashes(normalised_email(text), settings().hmac_key()),
            f"is_{name}_valid": pc.match_substring_regex(pc.utf8_trim_whitespace(text), _EMAIL_SHAPE),
        }
    return {f"{name}_hash": keyed_hashes(pc.utf8_trim_whitespace(text), settings().hmac_key())}
