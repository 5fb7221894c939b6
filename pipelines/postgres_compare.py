"""PostgreSQL against its raw tables: the stream of a load, hashed while it passes through memory instead of being written.

Both sides give each row two numbers, `k` for its key and `h` for its content. DuckDB's hash takes -0.0 for 0.0 and all NaN
for one, as its own comparisons do, by which a load tells what changed.
"""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import landing, raw, raw_shape
from pipelines.compare import MOST_NAMED, MOST_RANGES, Difference, TableComparison
from pipelines.postgres import PostgresDeclaration, declaration
from pipelines.postgres_catalog import Plan, plans
from pipelines.postgres_server import SOURCE, attached, explained, query
from pipelines.postgres_stream import Stream, timestamp
from pipelines.source import DELETED_AT, INTERVALS, LOADED_AT, OWN_COLUMNS
from warehouse import clock, ledger, storage
from warehouse.console import progress
from warehouse.errors import UsageError
from warehouse.ledger import Run
from warehouse.settings import settings
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_INTEGERS = ("SMALLINT", "INTEGER", "BIGINT")
_MOST_CONDITIONS = 32
_LONGEST_KEY = 200


def compare_postgres(tables: Sequence[str], run: Run) -> list[TableComparison]:
    """Compare raw tables with the source, all in one snapshot of it; see `pipelines.compare.compare`."""
    declared = declaration()
    settings().hmac_key()
    found = []
    with storage.open_warehouse() as warehouse, attached(declared.statement_timeout) as source:
        source.begin()
        chosen = _chosen(plans(source, declared.tables).plans, tables)
        with progress(f"comparing {SOURCE}", len(chosen)) as advance:
            for plan in chosen:
                with run.step("compare", f"{SOURCE}.{plan.own}") as step:
                    began = time.monotonic()
                    result = _Comparison(source, warehouse, plan, declared).run()
                    result.seconds = time.monotonic() - began
                    step.rows_in, step.rows_out = result.rows_source, result.rows_warehouse
                    step.detail = {name: value for name, value in result.as_json().items() if name not in ("source", "table", "seconds")}
                    if not result.is_equal:
                        step.status, step.error = "findings", result.summary
                    found.append(result)
                advance(1)
    return found


def _chosen(planned: list[Plan], tables: Sequence[str]) -> list[Plan]:
    for name in tables:
        if not any(name in (plan.own, plan.relation.full_name) for plan in planned):
            known = ", ".join(sorted(plan.own for plan in planned))
            raise UsageError(f"{SOURCE} has no declared table {name!r}; tables: {known}", mend=f"write one of these, or declare it in pipelines/{SOURCE}.yaml")
    return [plan for plan in planned if not tables or {plan.own, plan.relation.full_name} & set(tables)]


class _Comparison:
    """One table, both sides of it."""

    def __init__(self, source: "DuckDBPyConnection", warehouse: "DuckDBPyConnection", plan: Plan, declared: PostgresDeclaration) -> None:
        from privacy.pseudonyms import keyed_name

        self._source, self._warehouse, self._plan, self._declared = source, warehouse, plan, declared
        self._stream = Stream(source, plan, clock.now(), clock.now())
        self._table = raw_shape.name_of(SOURCE, plan.own)
        self._held = raw.held(warehouse, SOURCE, plan.own, plan.cursor)
        self._result = TableComparison(SOURCE, plan.own)
        self._key = [keyed_name(SOURCE, plan.own, column) for column in plan.primary_key]
        self._types: dict[str, tuple[str, str]] = {}
        """Of each column compared, by its name in the source: the type that the source gives, the type held."""
        self._bucket = "0"
        self._lowest, self._width = 0, 1

    def run(self) -> TableComparison:
        """Compare ranges, and where they differ, keys."""
        result = self._result
        if not self._held.columns:
            result.shape.append("never loaded")
            result.rows_source = result.missing = query(self._source, f"SELECT count(*) FROM {self._plan.in_postgres}")[0][0]
            return result
        self._compare_shape()
        self._divide()
        unsettled = self._unsettled()
        self._source.register("_unsettled", unsettled)
        self._warehouse.register("_unsettled", unsettled)
        sums = f"SELECT {self._bucket} AS bucket, count(*), sum(h), bit_xor(h) FROM {{}} r ANTI JOIN _unsettled u ON r.k = u.k GROUP BY ALL"
        there = {bucket: rest for bucket, *rest in self._ask_source(sums).fetchall()}
        here = {bucket: rest for bucket, *rest in self._ask_warehouse(sums).fetchall()}
        result.not_yet_loaded = unsettled.num_rows
        result.rows_source = sum(count for count, *_ in there.values()) + unsettled.num_rows
        result.rows_warehouse = self._count(f"SELECT count(*) FROM {self._table} WHERE {DELETED_AT} IS NULL")
        differing = sorted(bucket for bucket in here.keys() | there.keys() if here.get(bucket) != there.get(bucket))
        if differing:
            self._find_keys(differing)
        if result.ranges_differing and not self._late():
            result.notes.append("without a cursor nothing tells a fault from a change since the last load: load, then compare again")
        return result

    def _compare_shape(self) -> None:
        """Choose the columns that both sides have; say which the warehouse lacks, or has alone."""
        sql, values = self._stream.select(self._stream.columns)
        held = {name.lower(): kind for name, kind in self._held.columns.items()}
        arriving = {row[0]: row[1] for row in self._execute(f"DESCRIBE {sql}", values).fetchall()}
        self._types = {name: (kind, held[name.lower()]) for name, kind in arriving.items() if name.lower() in held}
        lacking = [name for name in arriving if name not in self._types]
        if lacking:
            self._result.shape.append(f"columns that the warehouse lacks: {', '.join(lacking)}")
        if not set(self._key) <= set(self._types):
            self._key = []
        present = {name.lower() for name in arriving}
        self._result.left_out = [name for name in self._held.columns if name.lower() not in present and name not in OWN_COLUMNS]

    @property
    def _has_integer_key(self) -> bool:
        return len(self._key) == 1 and all(kind in _INTEGERS for kind in self._types[self._key[0]])

    def _divide(self) -> None:
        """Choose the parts that are compared: ranges of an integer key, otherwise parts by the key's hash."""
        if not self._has_integer_key:
            self._bucket, self._result.ranges = (f"k % {MOST_RANGES}", MOST_RANGES) if self._key else ("0", 1)
            return
        ends = f"SELECT min({quoted(self._key[0])}), max({quoted(self._key[0])}) FROM "
        there, here = query(self._source, ends + self._plan.in_postgres)[0], self._warehouse.execute(ends + self._table).fetchone() or (None, None)
        bounds = [int(end) for end in (*there, *here) if end is not None] or [0]
        lowest, span = min(bounds), max(bounds) - min(bounds)
        self._lowest, self._width = lowest, span // MOST_RANGES + 1
        wide = "::HUGEINT" if span >= 2**63 else ""  # the difference would not fit
        self._bucket = f"((k{wide} - ({lowest})) // {self._width})"
        self._result.ranges = span // self._width + 1

    def _unsettled(self) -> "pa.Table":
        """The keys of rows that may have changed since the last load, as far as the warehouse does not hold them so."""
        late = self._late()
        if not late:
            return self._warehouse.execute("SELECT 0::UBIGINT AS k LIMIT 0").to_arrow_table()
        self._warehouse.register("_late", self._ask_source("SELECT k, h FROM {}", late).to_arrow_table())
        found = self._ask_warehouse("SELECT l.k FROM _late l ANTI JOIN {} r ON r.k = l.k AND r.h = l.h").to_arrow_table()
        self._warehouse.unregister("_late")
        return found

    def _late(self) -> str:
        """The condition in PostgreSQL for rows that a load may not have seen yet; empty where nothing tells.

        Every change stamped before `Held.settled_at` was committed when the source was last read. Cursors that do not
        relate to the clock go back as far as the load does.
        """
        plan, held = self._plan, self._held
        if plan.way != "changes" or plan.cursor is None or not self._key or held.settled_at is None or held.loaded_at is None:
            return ""
        cursor, kind = quoted(plan.cursor), held.columns.get(plan.cursor)
        if kind == "TIMESTAMP WITH TIME ZONE":
            bound = f"{cursor} >= {timestamp(held.settled_at)}"
        elif held.cursor is None:
            bound = "true"
        elif isinstance(held.cursor, int):
            bound = f"{cursor} >= {held.cursor}"
        else:
            lag = int((held.loaded_at - held.settled_at).total_seconds())
            bound = f"{cursor} >= timestamp {literal(held.cursor.isoformat())} - interval '{lag} seconds'"
        return f"({bound} OR {cursor} IS NULL)"

    def _find_keys(self, buckets: list[int]) -> None:
        """Compare the rows of some ranges one by one, and name the first that differ."""
        among = f"{{}} r ANTI JOIN _unsettled u ON r.k = u.k WHERE {self._bucket} IN ({', '.join(map(str, buckets))})"
        rows = self._ask_source(f"SELECT r.k, r.h FROM {among}", self._in_postgres(buckets)).to_arrow_table()
        self._warehouse.register("_there", rows)
        self._ask_warehouse(
            "CREATE OR REPLACE TEMP TABLE _differing AS SELECT coalesce(t.k, h.k) AS k, coalesce(t.n, 0) AS there, coalesce(h.n, 0) AS here "
            "FROM (SELECT k, count(*) AS n, sum(h) AS total FROM _there GROUP BY k) t "
            f"FULL JOIN (SELECT r.k, count(*) AS n, sum(r.h) AS total FROM {among} GROUP BY r.k) h ON t.k = h.k "
            "WHERE t.n IS DISTINCT FROM h.n OR t.total IS DISTINCT FROM h.total"
        )
        self._warehouse.unregister("_there")
        self._excuse_deleted()
        self._excuse_erased(buckets)
        result = self._result
        # Without a key the content is the key: a row that stands there twice and here once is one missing.
        less, more = (
            ("sum(greatest(there - here, 0))", "sum(greatest(here - there, 0))")
            if not self._key
            else ("count(*) FILTER (here = 0)", "count(*) FILTER (there = 0)")
        )
        counts = self._warehouse.execute(
            f"SELECT coalesce({less}, 0), coalesce({more}, 0), count(*) FILTER (there > 0 AND here > there), "
            f"count(*) FILTER (there > 0 AND here > 0 AND here <= there), count(DISTINCT {self._bucket}) FROM _differing"
        ).fetchone()
        result.missing, result.extra, result.doubled, result.changed, result.ranges_differing = map(int, counts or (0,) * 5)
        if not self._key:
            result.doubled = result.changed = 0
        elif result.ranges_differing:
            self._name_keys()

    def _excuse_deleted(self) -> None:
        """Take out the rows whose deletion in the source the loads need not have seen yet.

        That they were read from it once, the landing zone must confirm, as far as it holds the package they came with.
        """
        if not self._key or not self._deletes_may_wait():
            return
        kept = [str(one.file) for one in landing.packages(SOURCE, self._plan.own) if one.is_loaded and one.primary_key == self._key]
        foreign = "SELECT NULL::UBIGINT AS k LIMIT 0"
        if kept:
            files = f"read_parquet([{', '.join(literal(file) for file in kept)}], union_by_name = true)"
            key = self._key_number(held=True)
            foreign = (
                f"SELECT e.k FROM (SELECT {key} AS k, {LOADED_AT} FROM {self._table} WHERE {DELETED_AT} IS NULL) e "
                "SEMI JOIN (SELECT k FROM _differing WHERE there = 0) d ON e.k = d.k "
                f"ANTI JOIN (SELECT {key} AS k, {LOADED_AT} FROM {files} WHERE {DELETED_AT} IS NULL) l ON e.k = l.k AND e.{LOADED_AT} = l.{LOADED_AT} "
                f"WHERE e.{LOADED_AT} IN (SELECT DISTINCT {LOADED_AT} FROM {files})"
            )
        self._result.not_yet_deleted = self._count(f"DELETE FROM _differing WHERE there = 0 AND k NOT IN ({foreign})")
        if self._result.not_yet_deleted:
            self._result.notes.append(f"{self._result.not_yet_deleted:,} rows are gone from the source and not yet seen as deleted")

    def _excuse_erased(self, buckets: list[int]) -> None:
        """Take out the rows of erased persons that are as an erasure leaves them: not here, or here without the person.

        A row that the policy keeps must be here all the same.
        """
        from privacy.erasures import theirs_in_source

        theirs = theirs_in_source(self._source, SOURCE, self._plan.own, {name: kind for name, (_, kind) in self._types.items()}) if self._key else None
        if theirs is None:
            return
        rows, values = self._stream.select(list(self._types), self._in_postgres(buckets))
        found = self._execute(f"SELECT {self._key_number(held=False)} AS k FROM ({rows}) AS r WHERE {theirs.condition}", {**theirs.parameters, **values})
        self._warehouse.register("_theirs", found.to_arrow_table())
        is_so = "true" if theirs.may_be_missing else "here = there"
        self._result.erased = self._count(f"DELETE FROM _differing WHERE k IN (SELECT k FROM _theirs) AND here <= there AND {is_so}")
        self._warehouse.unregister("_theirs")
        if self._result.erased:
            self._result.notes.append(f"{self._result.erased:,} rows are of erased persons: kept without the person, or left out")

    def _deletes_may_wait(self) -> bool:
        """Whether the loads still keep what `deletes` promises: keys are compared once its interval has passed, at the next load.

        Before the first comparison of keys the oldest load that rows come from counts. One that was refused does not.
        """
        schedule = self._plan.table.deletes or self._declared.deletes
        if schedule == "never":
            return True
        last = ledger.last_success("compare keys", f"{SOURCE}.{self._plan.own}", findings_too=False)
        if last is None:
            row = self._warehouse.execute(f"SELECT min({LOADED_AT}) FROM {self._table}").fetchone()
            last = row[0] if row else None
        return last is not None and clock.now() - last <= INTERVALS[schedule] + INTERVALS[self._declared.schedule]

    def _name_keys(self) -> None:
        """Say of the first differing keys, some of each kind, what differs: columns by name, never values."""
        kind = "CASE WHEN here = 0 THEN 1 WHEN there = 0 THEN 2 WHEN here > there THEN 3 ELSE 0 END"
        first = f"SELECT k, there, here FROM _differing ORDER BY row_number() OVER (PARTITION BY {kind} ORDER BY k), {kind} LIMIT {MOST_NAMED}"
        chosen = self._warehouse.execute(first).fetchall()
        where = f"WHERE k IN ({', '.join(str(k) for k, *_ in chosen)})"
        window = f"{quoted(self._key[0])} IN ({', '.join(str(k) for k, *_ in chosen)})" if self._has_integer_key else ""
        there = {k: rest for k, *rest in self._ask_source(f"SELECT k, name, hashes FROM {{}} {where}", window, named=True).fetchall()}
        here = {k: rest for k, *rest in self._ask_warehouse(f"SELECT k, name, hashes FROM {{}} {where}", named=True).fetchall()}
        key = self._key_number(held=True)
        marked = f"SELECT k FROM (SELECT {key} AS k FROM {self._table} WHERE {DELETED_AT} IS NOT NULL) {where}"
        deleted = {row[0] for row in self._warehouse.execute(marked).fetchall()}
        for k, count_there, count_here in chosen:
            name = (here.get(k) or there[k])[0][:_LONGEST_KEY]
            columns: list[str] = []
            if count_here == 0:
                what = "marked as deleted in the warehouse" if k in deleted else "missing in the warehouse"
            elif count_there == 0:
                what = "only in the warehouse"
            elif count_here > count_there:
                what = f"{count_here} times in the warehouse"
            else:
                what = "differs"
                columns = [column for column, one, other in zip(self._types, there[k][1], here[k][1], strict=True) if one != other]
            self._result.differences.append(Difference(name, what, columns))

    def _in_postgres(self, buckets: list[int]) -> str:
        """The condition in PostgreSQL for the rows of a few ranges; empty when all may as well be read."""
        if not self._has_integer_key or len(buckets) > _MOST_CONDITIONS:
            return ""
        starts = [(self._lowest + bucket * self._width, self._lowest + (bucket + 1) * self._width - 1) for bucket in buckets]
        return " OR ".join(f"{quoted(self._key[0])} BETWEEN {first} AND {last}" for first, last in starts)

    def _ask_source(self, sql: str, window: str = "", *, named: bool = False) -> "DuckDBPyConnection":
        """Ask something of the source's rows, `{}` standing for them with `k` and `h`; see `_numbered`."""
        rows, values = self._stream.select(list(self._types), window)
        return self._execute(sql.replace("{}", self._numbered(rows, held=False, named=named)), values)

    def _ask_warehouse(self, sql: str, *, named: bool = False) -> "DuckDBPyConnection":
        """Ask the same of the rows held."""
        rows = f"SELECT * FROM {self._table} WHERE {DELETED_AT} IS NULL"
        return self._warehouse.execute(sql.replace("{}", self._numbered(rows, held=True, named=named)))

    def _numbered(self, rows: str, *, held: bool, named: bool) -> str:
        """A subquery that gives each row `k` for its key and `h` for its content; `named` also the key and each column's hash."""
        columns = [self._comparable(name, held=held) for name in self._types]
        # Of several columns DuckDB only XORs the last one's hash in: exchanged between rows it could cancel out of the sums.
        content = f"hash(hash({', '.join(columns) or '0'}))"
        key = self._key_number(held=held) if self._key else content
        if named:
            texts = ", ".join(f"coalesce({self._as_held(name, held=held)}::VARCHAR, 'null')" for name in self._key)
            return f"(SELECT {key} AS k, concat_ws(', ', {texts}) AS name, [{', '.join(f'hash({one})' for one in columns)}] AS hashes FROM ({rows}))"
        return f"(SELECT {key} AS k, {content} AS h FROM ({rows}))"

    def _key_number(self, *, held: bool) -> str:
        if self._has_integer_key:
            return f"{quoted(self._key[0])}::BIGINT"
        return f"hash({', '.join(self._as_held(name, held=held) for name in self._key)})"

    def _as_held(self, name: str, *, held: bool) -> str:
        arriving, kind = self._types[name]
        return quoted(name) if held or arriving == kind else f"TRY_CAST({quoted(name)} AS {kind})"

    def _comparable(self, name: str, *, held: bool) -> str:
        """What is hashed of a column: where its type is another than the one held, also whether the one held can hold the value."""
        arriving, kind = self._types[name]
        if arriving == kind:
            return quoted(name)
        lost = "false" if held else f"{quoted(name)} IS DISTINCT FROM TRY_CAST(TRY_CAST({quoted(name)} AS {kind}) AS {arriving})"
        return f"{self._as_held(name, held=held)}, {lost}"

    def _execute(self, sql: str, values: dict[str, bytes]) -> "DuckDBPyConnection":
        import duckdb

        from privacy.policy import undeclared
        from privacy.pseudonyms import PERSONAL_ERROR

        try:
            return self._source.execute(sql, values)
        except duckdb.Error as error:
            found = re.search(rf"{PERSONAL_ERROR}: (\w+) in (.+)", str(error))
            if found:
                raise undeclared(SOURCE, self._plan.own, found.group(2).strip(), found.group(1), "its values") from None
            raise explained(error, f"reading {self._plan.relation.full_name}") from None

    def _count(self, sql: str) -> int:
        row = self._warehouse.execute(sql).fetchone()
        return int(row[0]) if row else 0
