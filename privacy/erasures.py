"""The ledger of erasures: who was erased, as tags that only the key of the pseudonyms can make; and what follows from it for good.

A load puts nobody back (`suppress`), and a restore erases again whom it brought back (`privacy.replay`). The ledger is kept apart from what
backups restore (`PRIVACY__ERASURES`), grows only, and refuses to be read when something of it is missing.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy import rekey_records, vault_keys
from privacy.chain import Chain
from privacy.rows import Finder, clean_trees, find, is_of_persons, rule_of, turn_of
from privacy.subjects import EMAIL, bind_tags, expression, parameters, tagged
from warehouse import clock, storage
from warehouse.errors import StepFailed
from warehouse.settings import settings
from warehouse.sql import literal, parquet, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BEGUN, _LEARNED, _DONE = "begun", "learned", "done"


@dataclass(frozen=True)
class Erasure:
    """One erasure: when it was asked for, and the tags of all keys of its subjects and of the rows that hang on them.

    Attributes:
        number: of the line that began it.
        named: the tags of the keys that the operator named.
        is_done: whether it was carried through on this machine's ledger.
    """

    number: int
    at: str
    named: tuple[str, ...]
    tags: tuple[str, ...]
    is_done: bool


def ledger() -> Chain:
    """The record itself."""
    return Chain(settings().erasures / "erasures.jsonl", settings().anchors / "erasures.anchor")


def all_erasures() -> list[Erasure]:
    """Every erasure, the oldest first.

    Raises:
        StepFailed: the ledger was tampered with.
    """
    chain = ledger()
    return list(_read(chain.path, _stamp(chain.path), _stamp(chain.anchor)))


def tags() -> list[tuple[str, str]]:
    """Every tag with the time of its erasure."""
    return [(tag, erasure.at) for erasure in all_erasures() for tag in erasure.tags]


def position() -> int:
    """How many lines the ledger has."""
    return ledger().head()[0] if ledger().path.exists() or ledger().anchor.exists() else 0


def mark() -> str | None:
    """How far the ledger goes, as `lines:seal of the last`: a backup notes it, and a restore refuses a ledger that lacks it. None while it is empty."""
    lines, seal = ledger().head() if position() else (0, "")
    return f"{lines}:{seal}" if lines else None


def require(marks: Iterable[str]) -> None:
    """Refuse to go on with a ledger that lacks what it held when one of the marks was made.

    Raises:
        StepFailed: it is missing, older, another one, or was tampered with.
    """
    lines = list(ledger().lines())
    for one in marks:
        number, _, seal = one.partition(":")
        if not number.isdigit():
            raise StepFailed(f"the mark {one[:40]!r} of the ledger of erasures cannot be read.", mend="restore with a newer checkout")
        if int(number) > len(lines):
            is_missing = not ledger().path.exists()
            what = "is missing" if is_missing else f"has {len(lines)} lines, and {number} were noted"
            raise StepFailed(
                f"the ledger of erasures {what}: persons who were erased would come back, so nothing was opened.",
                mend=f"put its newest copy into {settings().erasures} (`warehouse restore records` brings it from the stores), and restore again",
            )
        if int(number) and seal and not ledger().had(int(number), seal):
            what = f"the ledger of erasures is another one than that which was noted: line {number} differs."
            raise StepFailed(what, mend=f"put the right one into {settings().erasures}: docs/runbooks/erasure.md says how to tell")


def begin(named: Iterable[str], known: Iterable[str], emails: Iterable[str] = ()) -> int:
    """Note an erasure before anything is erased, durable: from now on no load brings the subjects back. Returns its number.

    Args:
        named, known: tags.
        emails: keyed hashes of the emails among them; kept sealed, for `privacy.rekey_records` to tag them anew when a key is changed.
    """
    named = tuple(named)
    content = {"event": _BEGUN, "at": clock.now().isoformat(), "key_id": settings().privacy.hmac_key_id, "named": named, "tags": sorted({*named, *known})}
    return ledger().append({**content, "emails": [rekey_records.sealed_email(one) for one in sorted(emails)]})


def learn(learned: Iterable[tuple[str, str]]) -> None:
    """Note further tags, each with the time of its erasure: keys of a subject that were not known before."""
    by_time: dict[str, list[str]] = {}
    for tag, at in learned:
        by_time.setdefault(at, []).append(tag)
    for at, found in by_time.items():
        ledger().append({"event": _LEARNED, "at": at, "key_id": settings().privacy.hmac_key_id, "tags": sorted(found)})
        vault_keys.destroy((tag, at) for tag in found)


def finish(number: int) -> None:
    """Note that an erasure was carried through."""
    ledger().append({"event": _DONE, "at": clock.now().isoformat(), "erasure": number})


def bind(connection: "DuckDBPyConnection") -> bool:
    """Make the tags known to a connection; returns whether anybody was ever erased."""
    known = tags()
    if known:
        bind_tags(connection, known)
    return bool(known)


def suppress(source: str, table: str, file: Path) -> int:
    """Take erased persons out of a file that a load is about to keep; returns the number of rows changed or removed.

    Costs nothing while nobody was erased, and reads the columns of keys otherwise; the file is written anew only when there is something.
    """
    if not is_of_persons(source, table) or not all_erasures():
        return 0
    with storage.scratch(may_spill=True) as connection:
        bind(connection)
        count, beside = write_without(connection, source, table, file)
        if beside:
            os.replace(beside, file)
        return count


def write_without(connection: "DuckDBPyConnection", source: str, table: str, file: Path, find: Finder = find) -> tuple[int, Path | None]:
    """Write a Parquet file of a raw table anew beside it, without the erased persons, or whatever else `find` finds.

    Returns:
        the number of rows changed or removed, and the new file; none where there is nothing to erase.
    """
    relation = f"read_parquet({literal(file)})"
    columns = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
    found = find(connection, relation, columns, source, table)
    learn(found.learned)
    if found.is_nothing:
        return 0, None
    count = _count(connection, f"SELECT count(*) FROM {relation} AS r {found.joins} WHERE {found.is_touched}")
    if not count:
        return 0, None
    chosen = ", ".join(f"{after} AS {quoted(column)}" for column, after in found.columns.items())
    kept = f" WHERE NOT coalesce({found.is_theirs}, false)" if found.removes else ""
    beside = file.with_name(f".{file.name}.erased")
    with clean_trees(connection, found):
        connection.execute(f"COPY (SELECT {chosen} FROM {relation} AS r {found.joins}{kept}) TO {parquet(beside)}")
    return count, beside


@dataclass(frozen=True)
class Theirs:
    """How rows of erased persons are told in a source's own rows `r`, and whether the warehouse may be without them."""

    condition: str
    parameters: dict[str, bytes]
    may_be_missing: bool


def theirs_in_source(connection: "DuckDBPyConnection", source: str, table: str, columns: Mapping[str, str]) -> Theirs | None:
    """SQL for the rows of erased persons among rows as they are loaded; None where nobody was erased, or the table is nobody's.

    Args:
        connection: where the condition will be asked; it gets the view `_erased_tags`.
        columns: of those rows, by their names in the warehouse.
    """
    import pyarrow as pa

    rule, known = rule_of(source, table), tags()
    if rule is None or not known:
        return None
    connection.register("_erased_tags", pa.table({"tag": [one for one, _ in known], "at": [datetime.fromisoformat(at) for _, at in known]}))
    links = {**rule.of, **rule.within, **rule.mentions, **({rule.key: rule.person} if rule.person else {})}
    links |= {rule.email: EMAIL} if rule.person and rule.email else {}
    conditions = []
    for column, kind in links.items():
        if column in columns:
            # Who comes again after the erasure, with the same email, is a customer anew.
            since = " AND coalesce(r.created_at <= t.at, true)" if kind == EMAIL and "created_at" in columns else ""
            conditions.append(f"EXISTS (SELECT 1 FROM _erased_tags t WHERE t.tag = {tagged(kind, expression(column))}{since})")
    if not conditions:
        return None
    return Theirs(" OR ".join(conditions), parameters(), bool(rule.person) or rule.erase == "remove")


def erase_raw(connection: "DuckDBPyConnection", *, dry_run: bool = False) -> dict[str, int]:
    """Erase in every raw table, persons first, then the rows on which others hang, then all others, each in one transaction.

    Returns:
        `raw_<source>.<table>` -> the number of rows changed or removed.
    """
    changed: dict[str, int] = {}
    for source, table, columns in raw_tables(connection):
        name = f"raw_{source}.{quoted(table)}"
        found = find(connection, name, columns, source, table)
        if not dry_run:
            learn(found.learned)
        if found.is_nothing:
            continue
        touched = f"FROM {name} AS r {found.joins} WHERE {found.is_touched}"
        count = _count(connection, f"SELECT count(*) {touched}")
        if count:
            changed[f"raw_{source}.{table}"] = count
        if dry_run or not count:
            continue
        chosen = ", ".join(f"{after} AS {quoted(column)}" for column, after in found.columns.items())
        kept = f" AND NOT coalesce({found.is_theirs}, false)" if found.removes else ""
        with clean_trees(connection, found):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE _after AS SELECT {chosen} {touched.replace('WHERE ', 'WHERE (', 1)}){kept}")
        connection.begin()
        try:
            connection.execute(f"DELETE FROM {name} WHERE rowid IN (SELECT r.rowid {touched})")
            connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM _after")
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
    return changed


def raw_tables(connection: "DuckDBPyConnection", is_concerned: Callable[[str, str], bool] = is_of_persons) -> list[tuple[str, str, dict[str, str]]]:
    """The raw tables that are concerned (that hold persons), in the order in which they are to be erased: source, table, columns."""
    query = (
        "SELECT schema_name, table_name, list(column_name ORDER BY column_index), list(data_type ORDER BY column_index) FROM duckdb_columns() "
        "JOIN duckdb_tables() USING (database_name, schema_name, table_name) WHERE database_name = current_database() AND starts_with(schema_name, 'raw_') "
        "GROUP BY ALL ORDER BY ALL"
    )
    found = []
    for schema, table, names, kinds in connection.execute(query).fetchall():
        source = schema.removeprefix("raw_")
        if is_concerned(source, table):
            found.append((turn_of(source, table), source, table, dict(zip(names, kinds, strict=True))))
    return [(source, table, columns) for _, source, table, columns in sorted(found, key=lambda one: one[:3])]


def _count(connection: "DuckDBPyConnection", query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _stamp(path: Path) -> tuple[int, int]:
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (0, 0)


@lru_cache(maxsize=4)
def _read(path: Path, _line: tuple[int, int], _anchor: tuple[int, int]) -> tuple[Erasure, ...]:
    begun: list[dict[str, Any]] = []
    learned: dict[str, list[str]] = {}
    done: set[int] = set()
    for line in ledger().lines():
        if line["event"] == _BEGUN:
            begun.append(line)
        elif line["event"] == _LEARNED:
            learned.setdefault(_instant(line["at"]), []).extend(line["tags"])
        elif line["event"] == _DONE:
            done.add(line["erasure"])
    return tuple(
        Erasure(one["number"], one["at"], tuple(one["named"]), (*one["tags"], *learned.get(_instant(one["at"]), ())), one["number"] in done) for one in begun
    )


def _instant(text: str) -> str:
    return datetime.fromisoformat(text).isoformat()
