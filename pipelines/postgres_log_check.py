"""What must hold in PostgreSQL before its log can be read; each thing that does not is named with the SQL that mends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.postgres_catalog import Plan
from pipelines.postgres_log import in_sql
from pipelines.postgres_server import SOURCE
from warehouse.errors import StepFailed
from warehouse.sql import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import cursor

_BY_ADMINISTRATOR = "as administrator: "


def check(cur: "cursor", slot: str, publication: str, plans: Sequence[Plan]) -> None:
    """See `pipelines.postgres_log.Log.check`."""
    _check_server(cur, slot)
    published = _published(cur, publication, plans)
    identities = _identities(cur, plans)
    for plan in plans:
        stored = identities.get((plan.relation.schema, plan.relation.name), [])
        for identity in stored:
            _check_generated(plan, identity)
        _check_table(plan, published, publication)
        for identity in stored:
            _check_identity(plan, identity)


@dataclass(frozen=True)
class _Published:
    """What a publication says.

    Attributes:
        tables: (schema, table) -> the columns it names (None: all) and its condition on rows.
    """

    via_root: bool
    is_for_all: bool
    tables: dict[tuple[str, str], tuple[list[str] | None, str | None]]


@dataclass(frozen=True)
class _Identity:
    """How a table, or a partition of it, says in the log which row was changed."""

    in_sql: str
    kind: str
    columns: list[str]
    generated: list[str]


def _check_server(cur: "cursor", slot: str) -> None:
    level = _one(cur, "SELECT current_setting('wal_level')")[0]
    if level != "logical":
        raise _failed(f"the server writes no log that can be read (wal_level is {level}).", "ALTER SYSTEM SET wal_level = logical; and restart PostgreSQL")
    user, may_replicate = _one(
        cur,
        """SELECT current_user::text, rolsuper OR rolreplication OR EXISTS (
          SELECT FROM pg_roles managed WHERE managed.rolname = 'rds_replication' AND pg_has_role(current_user, managed.oid, 'MEMBER'))
        FROM pg_roles WHERE rolname = current_user""",
    )
    if not may_replicate:
        name = quoted(user)
        raise _failed(f"the user {user} may not replicate.", f"ALTER ROLE {name} REPLICATION; (on Amazon RDS: GRANT rds_replication TO {name};)")
    exists, used, most = _one(
        cur,
        "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s), (SELECT count(*) FROM pg_replication_slots), "
        "current_setting('max_replication_slots')::int",
        (slot,),
    )
    if not exists and used >= most:
        raise _failed(
            f"no replication slot is free: {used} of {most} are there.",
            f"ALTER SYSTEM SET max_replication_slots = {most + 5}; and restart PostgreSQL, or SELECT pg_drop_replication_slot(…) for one that nobody reads",
        )


def _published(cur: "cursor", publication: str, plans: Sequence[Plan]) -> _Published:
    cur.execute(
        "SELECT pubviaroot, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = %s",
        (publication,),
    )
    found = cur.fetchone()
    name = quoted(publication)
    if found is None:
        tables = ", ".join(in_sql(plan) for plan in plans if plan.relation.kind in "rp")
        raise _failed(f"there is no publication {publication}.", f"CREATE PUBLICATION {name} FOR TABLE {tables} WITH (publish_via_partition_root = true);")
    via_root, is_for_all, *publishes = found
    hidden = [kind for kind, is_in in zip(("insert", "update", "delete", "truncate"), publishes, strict=True) if not is_in]
    if hidden:
        raise _failed(
            f"the publication {publication} leaves out {', '.join(hidden)}.",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');",
        )
    # Lists of columns and conditions came with PostgreSQL 15; as JSON, their absence is no error.
    cur.execute(
        """SELECT t.schemaname::text, t.tablename::text, to_jsonb(t) -> 'attnames', to_jsonb(t) ->> 'rowfilter'
        FROM pg_publication_tables t WHERE t.pubname = %s""",
        (publication,),
    )
    return _Published(via_root, is_for_all, {(schema, table): (columns, condition) for schema, table, columns, condition in cur.fetchall()})


def _check_table(plan: Plan, published: _Published, publication: str) -> None:
    table, name, full_name = in_sql(plan), quoted(publication), plan.relation.full_name
    if plan.relation.kind not in "rp":
        raise StepFailed(f"{SOURCE}: {full_name} is a view or a foreign table, which has no log.", mend=f"read it by query in pipelines/{SOURCE}.yaml")
    if plan.relation.kind == "p" and not published.via_root:
        raise _failed(
            f"the publication {publication} publishes the partitions of {full_name}, each under its own name.",
            f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true);",
        )
    found = published.tables.get((plan.relation.schema, plan.relation.name))
    if found is None:
        raise _failed(
            f"{full_name} is not in the publication {publication}" + (", although it is for all tables: it is unlogged." if published.is_for_all else "."),
            f"ALTER TABLE {table} SET LOGGED;" if published.is_for_all else f"ALTER PUBLICATION {name} ADD TABLE {table};",
        )
    columns, condition = found
    anew = f"ALTER PUBLICATION {name} DROP TABLE {table}; ALTER PUBLICATION {name} ADD TABLE {table};"
    if condition is not None:
        raise _failed(f"the publication {publication} hides rows of {full_name}: it has only those WHERE {condition}.", anew)
    hidden = [column for column in plan.readings if columns is not None and column not in columns]
    if hidden:
        raise _failed(f"the publication {publication} hides columns of {full_name}: {', '.join(hidden)}.", f"{anew} (or `exclude` them)")


def _identities(cur: "cursor", plans: Sequence[Plan]) -> dict[tuple[str, str], list[_Identity]]:
    """Of each table: its own identity, or those of its partitions, which need not be the same."""
    cur.execute(
        """WITH wanted AS (
          SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE (n.nspname::text, c.relname::text) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND c.relkind IN ('r', 'p')
        )
        SELECT w.schema, w.name, format('%%I.%%I', n.nspname, s.relname), s.relreplident::text,
          ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[:i.indnkeyatts - 1])
            WHERE i.indrelid = s.oid AND i.indimmediate AND i.indisvalid
              AND CASE s.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END),
          ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = s.oid AND a.attgenerated <> '' AND NOT a.attisdropped)
        FROM wanted w
        JOIN pg_class s ON s.oid = w.oid OR s.oid IN (SELECT relid FROM pg_partition_tree(w.oid) WHERE isleaf)
        JOIN pg_namespace n ON n.oid = s.relnamespace
        WHERE s.relkind = 'r' ORDER BY 1, 2, 3""",
        ([plan.relation.schema for plan in plans], [plan.relation.name for plan in plans]),
    )
    found: dict[tuple[str, str], list[_Identity]] = {}
    for schema, name, *identity in cur.fetchall():
        found.setdefault((schema, name), []).append(_Identity(*identity))
    return found


def _check_generated(plan: Plan, identity: _Identity) -> None:
    generated = [column for column in identity.generated if column in plan.readings]
    if generated:
        raise StepFailed(
            f"{SOURCE}: {plan.relation.full_name}.{generated[0]} is generated from other columns, and the log has no such columns.",
            mend=f"`exclude` it in pipelines/{SOURCE}.yaml and compute it in the models, or read the table by query",
        )


def _check_identity(plan: Plan, identity: _Identity) -> None:
    """Updates and deletes must say which row they are about, by the key that the plan goes by."""
    if identity.kind == "f":
        return
    missing = [column for column in plan.primary_key if column not in identity.columns]
    if missing or not identity.columns:
        needs = f"without {', '.join(missing)}" if missing and identity.columns else "without saying of which row"
        raise _failed(
            f"{identity.in_sql} logs updates and deletes {needs} (its replica identity).",
            f"ALTER TABLE {identity.in_sql} REPLICA IDENTITY "
            + ("DEFAULT;" if plan.primary_key and set(plan.primary_key) <= set(plan.relation.primary_key) else "FULL;"),
        )


def _one(cur: "cursor", sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    cur.execute(sql, values)
    return cur.fetchone() or ()


def _failed(what: str, sql: str) -> StepFailed:
    return StepFailed(f"{SOURCE}: {what}", mend=f"{_BY_ADMINISTRATOR}{sql}")
