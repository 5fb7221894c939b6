"""The stream of one table: exact and pseudonymised, from PostgreSQL through DuckDB into a file, never through Python."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pace import Pace
from pipelines.postgres_catalog import Plan
from pipelines.postgres_server import ATTACHED, SOURCE, explained, query
from pipelines.postgres_types import Choice, Reading
from pipelines.raw_changes import CHANGE_COLUMNS
from pipelines.source import DELETED_AT, LOADED_AT, OWN_COLUMNS, SETTLED_AT
from warehouse.errors import StepFailed
from warehouse.sql import literal, parquet, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SAMPLE_ROWS = 10_000
_MOST_SUSPECTS = 1_000


class Stream:
    """The rows of one table, exact and pseudonymised, from PostgreSQL through DuckDB into a file, never through Python."""

    def __init__(self, connection: "DuckDBPyConnection", plan: Plan, loaded_at: datetime, settled_at: datetime, pace: Pace | None = None) -> None:
        from privacy.pseudonyms import protect

        self.asked: list[str] = []
        """What was asked of the source, for the ledger."""
        self._pace = pace
        self._connection = connection
        self._plan = plan
        columns = {name: reading.in_duckdb.replace("{}", quoted(name)) for name, reading in plan.readings.items()}
        protected = protect(SOURCE, plan.own, columns, texts=[name for name, reading in plan.readings.items() if reading.is_text])
        self._protected = {
            **protected.columns,
            LOADED_AT: timestamp(loaded_at),
            SETTLED_AT: timestamp(min(settled_at, loaded_at)),
            DELETED_AT: "NULL::TIMESTAMPTZ",
        }
        self._parameters = protected.parameters
        taken = {name for name in plan.readings if name.lower() in OWN_COLUMNS}
        if taken:
            raise StepFailed(
                f"{SOURCE}: {plan.relation.full_name} has a column {min(taken)}, a name that the warehouse keeps for itself.",
                mend=f"`exclude` it in pipelines/{SOURCE}.yaml, or read a view that renames it",
            )

    def write(self, file: Path, window: str) -> int:
        """Write the rows of a window; returns their number."""
        self._look_at_a_sample(window)
        self.asked.append(f"SELECT {len(self._plan.readings)} columns FROM {self._plan.relation.full_name}" + (f" WHERE {window}" if window else ""))
        return self._copy(self._protected, file, window)

    def write_keys(self, file: Path, key: list[str]) -> int:
        """Write the keys of all rows."""
        self.asked.append(f"SELECT {', '.join(self._plan.primary_key)} FROM {self._plan.relation.full_name}")
        return self._copy({name: self._protected[name] for name in key}, file, "")

    def select(self, names: list[str], window: str = "") -> tuple[str, dict[str, bytes]]:
        """SQL that gives columns of the rows of a window as the warehouse would hold them, in the stream's connection; and the values to bind."""
        chosen = ", ".join(f"{self._protected[name]} AS {quoted(name)}" for name in names)
        sql = f"SELECT {chosen or 'NULL'} FROM {self._from(window)}"
        return sql, {name: value for name, value in self._parameters.items() if f"${name}" in sql}

    @property
    def columns(self) -> list[str]:
        """The columns of the raw table that come from the source, in its order."""
        return [name for name in self._protected if name not in OWN_COLUMNS]

    def write_changes(self, file: Path, columns: Mapping[str, str], texts: list[str], relation: str) -> dict[str, str]:
        """Write changes of a log, pseudonymised as the rows themselves are.

        Args:
            columns: the source's columns, as DuckDB SQL over the relation, which has the columns of `CHANGE_COLUMNS` too.
            texts: those that hold text.

        Returns:
            column in the file -> the source's column it is made of.
        """
        from privacy.policy import refuse_undeclared
        from privacy.pseudonyms import protect

        plain = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in columns.items())
        refuse_undeclared(SOURCE, self._plan.own, self._connection.execute(f"SELECT {plain} FROM {relation} LIMIT {_SAMPLE_ROWS}").to_arrow_table())
        protected = protect(SOURCE, self._plan.own, columns, texts=texts)
        self._write({**protected.columns, **{name: quoted(name) for name in CHANGE_COLUMNS}}, relation, protected.parameters, file)
        return protected.origins

    def _copy(self, columns: dict[str, str], file: Path, window: str) -> int:
        paced = f" WHERE paced(hash({quoted(next(iter(self._plan.readings)))}))" if self._pace else ""
        return self._write(columns, self._from(window) + paced, self._parameters, file)

    def _write(self, columns: Mapping[str, str], relation: str, parameters: Mapping[str, bytes], file: Path) -> int:
        import duckdb

        from privacy.policy import undeclared
        from privacy.pseudonyms import PERSONAL_ERROR

        chosen = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in columns.items())
        sql = f"COPY (SELECT {chosen} FROM {relation}) TO {parquet(file)}"
        used = {name: value for name, value in parameters.items() if f"${name}" in sql}
        try:
            row = self._connection.execute(sql, used).fetchone()
        except duckdb.Error as error:
            found = re.search(rf"{PERSONAL_ERROR}: (\w+) in (.+)", str(error))
            if found:
                raise undeclared(SOURCE, self._plan.own, found.group(2).strip(), found.group(1), "its values") from None
            raise explained(error, f"reading {self._plan.relation.full_name}") from None
        return int(row[0]) if row else 0

    def _from(self, window: str) -> str:
        plan = self._plan
        if not window and plan.relation.kind == "r" and all(reading.in_postgres is None for reading in plan.readings.values()):
            return f"{ATTACHED}.{plan.in_postgres}"  # read in parallel, by ranges of pages
        columns = ", ".join(f"{(reading.in_postgres or '{}').replace('{}', quoted(name))} AS {quoted(name)}" for name, reading in plan.readings.items())
        sql = f"SELECT {columns} FROM {plan.in_postgres}" + (f" WHERE {window}" if window else "")
        return f"postgres_query('{ATTACHED}', {literal(sql)})"

    def _look_at_a_sample(self, window: str) -> None:
        """Names, and shares that a single value does not show (phones), before the stream looks at every value."""
        import duckdb

        from privacy.policy import refuse_undeclared

        try:
            sample = self._connection.execute(f"SELECT * FROM {self._from(window)} LIMIT {_SAMPLE_ROWS}").to_arrow_table()
        except duckdb.Error as error:
            raise explained(error, f"reading {self._plan.relation.full_name}") from None
        if self._pace:
            self._pace.take(sample.num_rows)
        refuse_undeclared(SOURCE, self._plan.own, sample)


def refuse_unrepresentable(connection: "DuckDBPyConnection", plan: Plan, choices: Mapping[str, Choice], window: str, file: Path | None = None) -> None:
    """Look in PostgreSQL, in the same snapshot, for values that have no counterpart and that DuckDB would not notice.

    Args:
        file: what arrived, to look at the values that arrive as something else (`Reading.arrives_as`); before the stream,
            without it, the others are looked for.

    Raises:
        StepFailed: names table, column, row and the choices; the file must not be used then.
    """
    guarded = {
        name: reading
        for name, reading in plan.readings.items()
        if reading.unrepresentable and not reading.fails_in_stream and choices.get(name, "error") == "error" and (reading.arrives_as is None) == (file is None)
    }
    suspects = "" if file is None else _only_suspects(connection, plan, guarded, file)
    if not guarded or suspects is None:
        return
    guards = {name: (reading.unrepresentable or "").replace("{}", quoted(name)) for name, reading in guarded.items()}
    which = " ".join(f"WHEN {guard} THEN {literal(name)}" for name, guard in guards.items())
    row = " || ', ' || ".join(f"coalesce({quoted(name)}::text, 'null')" for name in plan.primary_key) or "'(it has no key)'"
    where = " AND ".join(f"({condition})" for condition in [" OR ".join(guards.values()), window, suspects] if condition)
    found = query(connection, f"SELECT CASE {which} END AS col, {row} AS row FROM {plan.in_postgres} WHERE {where} LIMIT 1")
    if found:
        column, key = found[0]
        kind = plan.readings[column].type
        raise StepFailed(
            f"{SOURCE}: {plan.relation.full_name}.{column}, row {key}: a value that {kind} cannot hold (NaN, infinity, or too many digits).",
            mend=f"correct it in PostgreSQL, or declare under {plan.relation.full_name} in pipelines/{SOURCE}.yaml "
            f"`columns: {{{column}: {{on_unrepresentable: null}}}}` to load null in its place, `text` to load the column as text",
        )


def _only_suspects(connection: "DuckDBPyConnection", plan: Plan, guarded: dict[str, Reading], file: Path) -> str | None:
    """The condition in PostgreSQL that leaves only rows worth a look: "" for all of them, None when there are none.

    NaN of numeric arrives as zero, so a file without zeros needs no look at the source, and one with few needs few rows.
    """
    if not guarded or not plan.primary_key:
        return ""
    integers = {"SMALLINT", "INTEGER", "BIGINT"}
    suspect = " OR ".join(f"{quoted(name)} = {reading.arrives_as}" for name, reading in guarded.items())
    if len(plan.primary_key) > 1 or plan.readings[plan.primary_key[0]].type not in integers:
        row = connection.execute(f"SELECT 1 FROM read_parquet({literal(file)}) WHERE {suspect} LIMIT 1").fetchone()
        return "" if row else None
    key = quoted(plan.primary_key[0])
    rows = connection.execute(f"SELECT {key} FROM read_parquet({literal(file)}) WHERE {suspect} LIMIT {_MOST_SUSPECTS + 1}").fetchall()
    if len(rows) > _MOST_SUSPECTS:
        return ""
    return f"{key} IN ({', '.join(str(int(row[0])) for row in rows)})" if rows else None


def refuse_doubled_keys(connection: "DuckDBPyConnection", plan: Plan, key: list[str], file: Path) -> None:
    """Check a key that the source itself does not prove.

    Raises:
        StepFailed: two rows have one key, or a part of it is null; the file is not used then.
    """
    names = ", ".join(quoted(name) for name in key)
    missing = " OR ".join(f"{quoted(name)} IS NULL" for name in key)
    sql = f"SELECT count(*) FROM (SELECT 1 FROM read_parquet({literal(file)}) GROUP BY {names} HAVING count(*) > 1 OR bool_or({missing}))"
    row = connection.execute(sql).fetchone()
    if row and row[0]:
        raise StepFailed(
            f"{SOURCE}: {plan.relation.full_name}: {row[0]} values of the declared key ({', '.join(plan.primary_key)}) stand twice or are null.",
            mend=f"declare a key that tells rows apart in pipelines/{SOURCE}.yaml, or none: then the table is replaced as a whole",
        )


def timestamp(instant: datetime) -> str:
    """An instant as a constant, in DuckDB's SQL and in PostgreSQL's."""
    return f"TIMESTAMPTZ '{instant.astimezone(UTC).isoformat()}'"
