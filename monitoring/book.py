"""What monitoring remembers: findings over time, incidents, and the outbox of alerts.

It is kept in the ledger's SQLite, which also works while another process holds the warehouse, and is copied into the
warehouse's schema `ops` like the ledger itself, from where an empty machine reads it back.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from monitoring.findings import Finding
from warehouse import ledger
from warehouse.errors import scrub

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLES: Mapping[str, Mapping[str, str]] = {
    "findings": {
        "fingerprint": "VARCHAR", "first_seen_at": "TIMESTAMPTZ", "last_seen_at": "TIMESTAMPTZ", "resolved_at": "TIMESTAMPTZ", "times_seen": "BIGINT",
        "origin": "VARCHAR", "check_name": "VARCHAR", "table_name": "VARCHAR", "column_name": "VARCHAR", "severity": "VARCHAR", "observed": "VARCHAR",
        "expected": "VARCHAR", "since": "TIMESTAMPTZ", "query": "VARCHAR", "share": "DOUBLE", "route": "VARCHAR",
    },
    "incidents": {
        "incident_id": "VARCHAR", "fingerprint": "VARCHAR", "title": "VARCHAR", "rule": "VARCHAR", "severity": "VARCHAR", "opened_at": "TIMESTAMPTZ",
        "resolved_at": "TIMESTAMPTZ", "acknowledged_at": "TIMESTAMPTZ", "findings": "BIGINT", "message": "VARCHAR",
    },
    "alerts": {
        "alert_id": "VARCHAR", "incident_id": "VARCHAR", "channel": "VARCHAR", "action": "VARCHAR", "lane": "VARCHAR", "message": "VARCHAR",
        "status": "VARCHAR",
        "created_at": "TIMESTAMPTZ", "not_before": "TIMESTAMPTZ", "sent_at": "TIMESTAMPTZ", "attempts": "BIGINT", "receipt": "VARCHAR", "error": "VARCHAR",
    },
}  # fmt: skip
_KEYS = {"findings": ("fingerprint", "first_seen_at"), "incidents": ("incident_id",), "alerts": ("alert_id",)}
_SQLITE = {"VARCHAR": "TEXT", "TIMESTAMPTZ": "TEXT", "BIGINT": "INTEGER", "DOUBLE": "REAL"}


@contextmanager
def opened() -> Iterator[sqlite3.Connection]:
    """The book in one durable transaction; rows answer by column name."""
    with ledger.opened() as book:
        for table, columns in TABLES.items():
            declared = ", ".join(f"{name} {_SQLITE[kind]}" for name, kind in columns.items())
            key = ", ".join(_KEYS[table])
            book.execute(f"CREATE TABLE IF NOT EXISTS {table} ({declared}, copied INTEGER NOT NULL DEFAULT 0, PRIMARY KEY ({key}))")
        book.row_factory = sqlite3.Row
        yield book


def text(instant: datetime) -> str:
    """An instant as it is kept: texts of two instants compare as the instants do."""
    return instant.isoformat(timespec="microseconds")


def insert(book: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Add a row of a table, named by its columns."""
    book.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def record(findings: Iterable[Finding], *, origin: str, now: datetime, looked_at: Callable[[str, str], bool] = lambda check, table: True) -> list[Finding]:
    """Note what was found, and which earlier findings were not found again: those are resolved.

    Args:
        findings: everything that was found now.
        origin: who looked, for example `check`; earlier findings of another origin are left alone.
        now: aware, by the one clock.
        looked_at: whether a check (its name) of a table was looked at, when not all were; other findings are left alone.

    Returns:
        the findings, one a fingerprint, each with `since` as it was first told.
    """
    found: dict[str, Finding] = {}
    for one in findings:
        known = found.get(one.fingerprint)
        if known is None or (one.severity, one.since) < (known.severity, known.since):  # `error` sorts before `warning`
            found[one.fingerprint] = one
    with opened() as book:
        rows = book.execute("SELECT * FROM findings WHERE resolved_at IS NULL AND origin = ?", (origin,)).fetchall()
        active = {row["fingerprint"]: row for row in rows if row["fingerprint"] in found or looked_at(row["check_name"], row["table_name"])}
        for fingerprint, one in found.items():
            before = active.pop(fingerprint, None)
            if before is not None:
                found[fingerprint] = one = replace(one, since=min(one.since, datetime.fromisoformat(before["since"])))
            _write(book, one, origin, now, before)
        for row in active.values():
            resolved = "UPDATE findings SET resolved_at = ?, copied = 0 WHERE fingerprint = ? AND first_seen_at = ?"
            book.execute(resolved, (text(now), row["fingerprint"], row["first_seen_at"]))
    return list(found.values())


def active_findings(book: sqlite3.Connection) -> list[Finding]:
    """What is wrong now, as far as anybody looked; the oldest first."""
    rows = book.execute("SELECT * FROM findings WHERE resolved_at IS NULL ORDER BY first_seen_at, severity, table_name, check_name, column_name").fetchall()
    return [_finding(row) for row in rows]


def copy_into(connection: "DuckDBPyConnection") -> int:
    """Copy what is new or changed into the warehouse's schema `ops`; returns the number of rows copied."""
    copied = 0
    with opened() as book:
        for table, columns in TABLES.items():
            rows = book.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE copied = 0").fetchall()
            connection.execute("CREATE SCHEMA IF NOT EXISTS ops")
            connection.execute(f"CREATE TABLE IF NOT EXISTS ops.{table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
            if not rows:
                continue
            keys = _KEYS[table]
            connection.begin()
            try:
                matches = " AND ".join(f"{key} = ?::{columns[key]}" for key in keys)
                connection.executemany(f"DELETE FROM ops.{table} WHERE {matches}", [[row[key] for key in keys] for row in rows])
                casts = ", ".join(f"?::{kind}" for kind in columns.values())
                connection.executemany(f"INSERT INTO ops.{table} VALUES ({casts})", [list(row) for row in rows])
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            book.execute(f"UPDATE {table} SET copied = 1 WHERE copied = 0")
            copied += len(rows)
    return copied


def fill_from(connection: "DuckDBPyConnection") -> None:
    """Read what an earlier machine remembered back from the warehouse's schema `ops`; what is known here stays."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'ops'"
    there = {row[0] for row in connection.execute(query).fetchall()}
    with opened() as book:
        for table, columns in TABLES.items():
            if table in there:
                read = [f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%f+00:00')" if kind == "TIMESTAMPTZ" else name for name, kind in columns.items()]
                rows = connection.execute(f"SELECT {', '.join(read)}, 1 FROM ops.{table}").fetchall()
                names = ", ".join((*columns, "copied"))
                book.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * (len(columns) + 1))})", rows)


def _write(book: sqlite3.Connection, one: Finding, origin: str, now: datetime, before: sqlite3.Row | None) -> None:
    values = {
        "check_name": one.check, "table_name": one.table, "column_name": one.column, "severity": one.severity, "observed": scrub(one.observed),
        "expected": scrub(one.expected), "since": text(one.since), "query": scrub(one.query), "share": one.share, "route": one.route,
        "last_seen_at": text(now), "origin": origin,
    }  # fmt: skip
    if before is None:
        first = now
        while book.execute("SELECT 1 FROM findings WHERE fingerprint = ? AND first_seen_at = ?", (one.fingerprint, text(first))).fetchone():
            first = first.replace(microsecond=first.microsecond + 1)  # a clock that is set stands still
        insert(book, "findings", {"fingerprint": one.fingerprint, "first_seen_at": text(first), "times_seen": 1, **values})
        return
    changes = ", ".join(f"{name} = ?" for name in values)
    statement = f"UPDATE findings SET {changes}, times_seen = times_seen + 1, copied = 0 WHERE fingerprint = ? AND first_seen_at = ?"
    book.execute(statement, (*values.values(), one.fingerprint, before["first_seen_at"]))


def _finding(row: sqlite3.Row) -> Finding:
    return Finding(
        row["check_name"], row["table_name"], row["column_name"], row["severity"], row["observed"], row["expected"],
        datetime.fromisoformat(row["since"]), row["query"], row["share"], row["route"],
    )  # fmt: skip
