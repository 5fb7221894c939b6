"""What is sealed in the vault of persons, for a reader whom the policy names; each reading is noted with its purpose."""

from collections.abc import Sequence
from typing import Any

from privacy import erasures
from privacy.policy import policy
from privacy.rows import base_of, find
from privacy.subjects import Subject, bind_tags, resolve, tag
from privacy.vault import SUFFIX, Sealer, may_read
from warehouse import clock, storage
from warehouse.sql import quoted


def reveal(named: Sequence[Subject], purpose: str) -> dict[str, list[dict[str, Any]]]:
    """The columns declared `encrypt` of all rows of persons, readable. Hold the lease.

    Args:
        purpose: why, for the audit trail.

    Returns:
        raw table -> rows: what tells each apart, and its readable columns; null where the key was destroyed.

    Raises:
        UsageError: who asks is not among `vault.readers` of the policy, the master key is not set, or an email names several persons.
    """
    may_read()
    shown: dict[str, list[dict[str, Any]]] = {}
    with storage.open_warehouse() as connection:
        bind_tags(connection, [(tag(one.kind, one.value), clock.now().isoformat()) for one in resolve(connection, named)])
        for source, table, columns in erasures.raw_tables(connection):
            base = base_of(source, table, policy().columns)
            rules = policy().columns[base] if base else {}
            sealed = [name for column, rule in rules.items() if rule.action == "encrypt" and (name := f"{column}{SUFFIX}") in columns]
            relation = f"raw_{source}.{quoted(table)}"
            found = find(connection, relation, columns, source, table) if sealed else None
            if found is None or found.is_theirs == "false":
                continue
            key = policy().subjects[base or ""].key
            chosen = ", ".join(f"r.{quoted(name)}" for name in (*([key] if key in columns else []), *sealed))
            rows = connection.execute(f"SELECT {chosen} FROM {relation} AS r {found.joins} WHERE {found.is_theirs}").to_arrow_table()
            shown[f"raw_{source}.{table}"] = Sealer(connection).unseal(rows, source, table, purpose=purpose).to_pylist()
    return shown
