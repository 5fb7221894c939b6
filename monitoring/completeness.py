"""No row is lost on the way: tables that have a row for each row of another one; and the newest row is not older than it may be."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from monitoring.contracts import source_of
from monitoring.expectations import Expectations, Newest, SameRows
from monitoring.findings import SAMPLE_ROWS, Finding
from monitoring.freshness import CLOCK_SKEW
from warehouse.sql import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COMPLETENESS = "completeness"
NEWEST = "newest row"


def check_completeness(connection: "DuckDBPyConnection", expectations: Expectations, now: datetime, left_out: Collection[str] = ()) -> list[Finding]:
    """Compare the keys of each declared pair of tables; what is missing or not asked for is counted, and the query names the keys.

    A pair that cannot be compared, for a table or a key is not there, is a finding of its own.

    Args:
        now: aware, by the one clock.
        left_out: sources that were never loaded; pairs of their tables are not looked at.
    """
    columns = _columns(connection)
    pairs = [pair for pair in expectations.rows if not {source_of(pair.table), source_of(pair.of)} & set(left_out)]
    found = [_absent(columns, pair, now) or _compare(connection, pair, now) for pair in pairs]
    return [finding for finding in found if finding is not None]


def check_newest(connection: "DuckDBPyConnection", expectations: Expectations, now: datetime) -> list[Finding]:
    """Judge the time of each declared table's newest row. What lies in the future is left out, and told when nothing else is there."""
    columns = _columns(connection)
    watched = {table: one for table, one in expectations.newest.items() if one.time in columns.get(table, ())}
    found = [_judge(connection, table, one, now) for table, one in watched.items()]
    return [finding for finding in found if finding is not None]


def _absent(columns: Mapping[str, set[str]], pair: SameRows, now: datetime) -> Finding | None:
    sides = {pair.table: pair.keys, pair.of: pair.of_keys}
    lacking = [f"{table}.{name}" for table, names in sides.items() for name in names if name not in columns.get(table, ())]
    if not lacking:
        return None
    query = f"SELECT column_name FROM duckdb_columns() WHERE schema_name || '.' || table_name IN ('{pair.table}', '{pair.of}')"
    return Finding("evaluation", pair.table, None, "error", f"no {', '.join(lacking)}", f"compared with the rows of {pair.of}", now, query)


def _compare(connection: "DuckDBPyConnection", pair: SameRows, now: datetime) -> Finding | None:
    own_key, of_key = (f"row({', '.join(map(quoted, names))})" if len(names) > 1 else quoted(names[0]) for names in (pair.keys, pair.of_keys))
    rows = f"SELECT {of_key} AS key, count(*) AS rows FROM {pair.of} WHERE {pair.where} GROUP BY 1"
    both = f"SELECT {own_key} AS key, count(*) AS rows FROM {pair.table} GROUP BY 1"
    joined = f"FROM ({rows}) AS wanted FULL JOIN ({both}) AS held USING (key) WHERE wanted.rows IS DISTINCT FROM held.rows"
    counts = connection.execute(f"SELECT (SELECT count(*) FROM {pair.of} WHERE {pair.where}), (SELECT count(*) FROM {pair.table})").fetchone()
    # Equal numbers can hide one row lost and one too many; sums of hashes of the keys cannot, and cost no join.
    sums = f"SELECT (SELECT sum(hash({of_key})) FROM {pair.of} WHERE {pair.where}) IS NOT DISTINCT FROM (SELECT sum(hash({own_key})) FROM {pair.table})"
    if counts is None or (counts[0] == counts[1] and connection.execute(sums).fetchone() == (True,)):
        return None
    differ = connection.execute(f"SELECT count(*) FILTER (held.rows IS NULL), count(*) FILTER (wanted.rows IS NULL), count(*) {joined}").fetchone()
    missing, extra, all_of_them = differ or (0, 0, 0)
    doubled = all_of_them - missing - extra
    observed = f"{counts[1]} rows, {missing} missing, {extra} too many" + (f", {doubled} more than once" if doubled else "")
    if not all_of_them:
        return None  # the keys have other types in both tables, and other hashes
    query = f"SELECT key, wanted.rows AS rows_wanted, held.rows AS rows_held {joined} LIMIT {SAMPLE_ROWS}"
    share = min(1.0, all_of_them / max(counts[0], 1))
    return Finding(COMPLETENESS, pair.table, None, "error", observed, f"the {counts[0]} rows of {pair.of}", now, query, share)


def _judge(connection: "DuckDBPyConnection", table: str, one: Newest, now: datetime) -> Finding | None:
    at = f"{quoted(one.time)}::TIMESTAMP"
    query = f"SELECT max({quoted(one.time)}) AS newest FROM {table}"
    limit = (now + CLOCK_SKEW).astimezone(UTC).replace(tzinfo=None)
    row = connection.execute(f"SELECT max({at}) FILTER ({at} <= ?), count(*) FROM {table}", [limit]).fetchone()
    newest, count = row or (None, 0)
    expected = f"a row of the last {one.within_hours:g} hours" + (", quiet hours left out" if one.quiet else "")
    if newest is None:
        return Finding(NEWEST, table, one.time, "error", f"{count} rows, none of them of the past", expected, now, query)
    newest = newest.replace(tzinfo=UTC)
    age, allowed = one.age(newest, now), timedelta(hours=one.within_hours)
    if age <= allowed:
        return None
    observed = f"the newest row is of {newest:%Y-%m-%d %H:%M} UTC, {age.total_seconds() / 3600:.1f} hours ago"
    return Finding(NEWEST, table, one.time, "error", observed, expected, newest + allowed, query)


def _columns(connection: "DuckDBPyConnection") -> Mapping[str, set[str]]:
    query = "SELECT schema_name || '.' || table_name, list(column_name) FROM duckdb_columns() WHERE database_name = current_database() GROUP BY 1"
    return {table: set(columns) for table, columns in connection.execute(query).fetchall()}
