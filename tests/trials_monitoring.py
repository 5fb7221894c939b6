"""How many faults monitoring finds, and how often it cries wolf: `python -m tests.trials_monitoring [--short] [--tuning] [--write]`.

Clean years of two generators that know nothing of each other, and a catalogue of faults at three severities, seed by seed. The
limits of monitoring/anomalies.py were chosen on the seeds of `--tuning`; what is reported is measured on others.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from integration import test_contracts as contracts

from monitoring.anomalies import check_anomalies
from monitoring.completeness import check_completeness
from monitoring.contract_files import read_contracts
from monitoring.contracts import check_contracts
from monitoring.expectations import Expectations
from warehouse.console import say
from warehouse.settings import ROOT

REPORT = ROOT / "docs" / "monitoring-figures.md"
BEGIN, DAYS, WARM_UP = date(2025, 1, 1), 365, 60
METRICS = ("volume", "sum revenue", "mean revenue", "null rate country", "distinct share user_id")
TUNING, REPORTED = 0, 2000
"""The first seed of each set."""


@dataclass
class World:
    """A company's orders, and the days that it has declared to be special."""

    connection: duckdb.DuckDBPyConnection
    special: list[date]
    last: date

    @property
    def expectations(self) -> Expectations:
        """What it has declared."""
        watched = {"day": "ordered_at", "by": "currency", "sums": ["revenue"], "means": ["revenue"], "null_rates": ["country"], "distinct_shares": ["user_id"]}
        return Expectations.model_validate({
            "anomalies": {"marts.orders": watched},
            "calendar": [{"name": "declared", "day": day.isoformat()} for day in self.special],
        })  # fmt: skip


def with_season(random: np.random.Generator, days: int) -> tuple[np.ndarray, list[int], Callable[[int], np.ndarray], float]:
    """Weekdays, growth and lognormal noise, Poisson counts; holidays that are slow and promotions that are not, all declared."""
    base, growth, noise = random.uniform(150, 600), random.uniform(-0.2, 1.0), random.uniform(0.03, 0.08)
    weekday = random.uniform(0.85, 1.15, 7)
    weekday[5:] *= random.uniform(0.4, 1.1)
    level = base * (1 + growth) ** (np.arange(days) / 365) * weekday[np.arange(days) % 7] * np.exp(random.normal(0, noise, days))
    special = []
    for begin in random.choice(days - 4, 14 * days // 365, replace=False):
        is_promotion = random.random() < 0.3
        length = 3 if is_promotion else 1
        level[begin : begin + length] *= random.uniform(1.5, 2.5) if is_promotion else random.uniform(0.2, 0.6)
        special += range(begin, begin + length)
    spread = random.uniform(0.4, 0.8)
    return random.poisson(level), special, lambda count: random.lognormal(3, spread, count), random.uniform(0, 0.1)


def with_memory(random: np.random.Generator, days: int) -> tuple[np.ndarray, list[int], Callable[[int], np.ndarray], float]:
    """Noise that remembers the day before, a yearly wave, counts that vary more than chance, gamma amounts; a week off, declared."""
    base, wave, phase = random.uniform(100, 500), random.uniform(0, 0.3), random.uniform(0, 6.3)
    latent = np.zeros(days)
    for day in range(1, days):
        latent[day] = 0.5 * latent[day - 1] + random.normal(0, 0.04)
    weekday = random.gamma(30, 1 / 30, 7)
    level = base * (1 + wave * np.sin(np.arange(days) * 6.283 / 365 + phase)) * weekday[np.arange(days) % 7] * np.exp(latent)
    begin = int(random.integers(0, max(days - 7, 1)))
    special = list(range(begin, min(begin + 7, days))) if days >= 365 else []
    level[special] *= 0.3
    size = random.uniform(200, 1000)
    counts = random.negative_binomial(size, size / (size + level))
    shape = random.uniform(1.5, 4)
    return counts, special, lambda count: random.gamma(shape, 10, count), random.uniform(0, 0.3)


GENERATORS = {"season": with_season, "memory": with_memory}


def world(generator: str, seed: int, days: int) -> World:
    """Orders in two currencies; users come back as often as the seed says."""
    random = np.random.default_rng([seed, len(generator)])
    counts, special, amounts, nulls = GENERATORS[generator](random, days)
    share, rows = random.uniform(0.4, 0.8), int(counts.sum())
    users = max(int(counts.mean() * random.uniform(2, 50)), 10)
    orders = {
        "day": np.repeat(np.arange(days), counts), "second": random.integers(0, 86_400, rows), "is_euro": random.random(rows) < share,
        "amount": amounts(rows), "chance": random.random(rows), "has_country": random.random(rows) >= nulls, "user_id": random.integers(0, users, rows),
    }  # fmt: skip
    import pyarrow

    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA marts")
    connection.register("orders", pyarrow.table(orders))
    connection.execute(
        f"CREATE TABLE marts.orders AS SELECT TIMESTAMP '{BEGIN}' + INTERVAL (day) DAY + INTERVAL (second) SECOND AS ordered_at, "
        "CASE WHEN is_euro THEN 'EUR' ELSE 'USD' END AS currency, amount::DECIMAL(12, 2) AS revenue, CASE WHEN has_country THEN 'DE' END AS country, "
        "user_id, chance FROM orders"
    )
    return World(connection, [BEGIN + timedelta(days=int(day)) for day in special], BEGIN + timedelta(days=days - 1))


def _morning_after(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 7, tzinfo=UTC) + timedelta(days=1)


def _ours(one: World, day: date) -> set[str]:
    """The series (metric, segment) that are unusual on the morning after a day."""
    return {f"{found.check.removeprefix('unusual ')} {found.column or ''}" for found in check_anomalies(one.connection, one.expectations, _morning_after(day))}


def _z_scores(one: World) -> dict[date, set[str]]:
    """The second baseline: volume and revenue of a segment against the mean and deviation of its last 14 days, limit 3."""
    rows = one.connection.execute(
        f"WITH days AS (SELECT unnest(generate_series(DATE '{BEGIN}', DATE '{one.last}', INTERVAL 1 DAY))::DATE AS day), "
        "sums AS (SELECT currency, day, count(user_id) AS volume, coalesce(sum(revenue), 0)::DOUBLE AS revenue "
        "FROM (SELECT DISTINCT currency FROM marts.orders) CROSS JOIN days "
        "LEFT JOIN (SELECT ordered_at::DATE AS day, * FROM marts.orders) USING (currency, day) GROUP BY ALL) "
        "SELECT day, currency, abs(volume - avg(volume) OVER before) > 3 * stddev_samp(volume) OVER before, "
        "abs(revenue - avg(revenue) OVER before) > 3 * stddev_samp(revenue) OVER before FROM sums "
        "WINDOW before AS (PARTITION BY currency ORDER BY day ROWS BETWEEN 14 PRECEDING AND 1 PRECEDING)"
    ).fetchall()
    found: dict[date, set[str]] = defaultdict(set)
    for day, currency, volume, revenue in rows:
        found[day] |= ({f"volume ({currency})"} if volume else set()) | ({f"sum ({currency}) revenue"} if revenue else set())
    return found


WHERE = "ordered_at::DATE BETWEEN '{first}' AND '{last}'"
Fault = tuple[str, int, tuple[str, str, str]]
"""Name, for how many days, and the SQL of the three severities."""


def _each(sql: str, *values: Any) -> tuple[str, str, str]:
    first, second, third = (f"{sql.replace('SEVERITY', str(value))}" for value in values)
    return first, second, third


GRADUAL: list[Fault] = [
    ("rows lost for a day", 1, _each("DELETE FROM marts.orders WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("rows lost for three days", 3, _each("DELETE FROM marts.orders WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("one currency lost for three days", 3, _each("DELETE FROM marts.orders WHERE {where} AND currency = 'USD' AND chance < SEVERITY", 0.3, 0.5, 1)),
    ("amounts too small for a day", 1, _each("UPDATE marts.orders SET revenue = revenue * SEVERITY WHERE {where}", 0.7, 0.5, 0.2)),
    ("amounts too small for three days", 3, _each("UPDATE marts.orders SET revenue = revenue * SEVERITY WHERE {where}", 0.7, 0.5, 0.2)),
    ("rows twice for a day", 1, _each("INSERT INTO marts.orders SELECT * FROM marts.orders WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 1)),
    ("rows twice for three days", 3, _each("INSERT INTO marts.orders SELECT * FROM marts.orders WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 1)),
    ("amounts in minor units", 1, _each("UPDATE marts.orders SET revenue = revenue * 100 WHERE {where} AND chance < SEVERITY", 0.05, 0.2, 1)),
    ("the end of a day lost", 1, _each("DELETE FROM marts.orders WHERE {where} AND hour(ordered_at) >= SEVERITY", 16, 12, 5)),
    ("amounts nought", 3, _each("UPDATE marts.orders SET revenue = 0 WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("countries empty", 1, _each("UPDATE marts.orders SET country = NULL WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 0.8)),
    ("one user has all orders", 1, _each("UPDATE marts.orders SET user_id = 1 WHERE {where} AND chance < SEVERITY", 0.5, 0.8, 1)),
    ("rows dated a day early", 1, _each("UPDATE marts.orders SET ordered_at = ordered_at - INTERVAL 1 DAY WHERE {where} AND chance < SEVERITY", 0.3, 0.5, 1)),
]  # fmt: skip


@dataclass
class Counted:
    """Found of how many."""

    found: int = 0
    of: int = 0

    def add(self, is_found: bool) -> None:
        """One more trial."""
        self.found, self.of = self.found + is_found, self.of + 1

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low = stats.beta.ppf(0.025, self.found, self.of - self.found + 1) if self.found else 0.0
        high = stats.beta.ppf(0.975, self.found + 1, self.of - self.found) if self.found < self.of else 1.0
        return f"{100 * self.found / self.of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def rate(events: int, years: float) -> str:
    """Events a year with their exact 95 % interval."""
    low = stats.chi2.ppf(0.025, 2 * events) / 2 / years if events else 0.0
    return f"{events / years:.2f} ({low:.2f} to {stats.chi2.ppf(0.975, 2 * events + 2) / 2 / years:.2f})"


def gradual_faults(seeds: Sequence[int], faults: Sequence[Fault] = tuple(GRADUAL)) -> Iterator[tuple[str, int, dict[str, Counted]]]:
    """Each fault and severity: how often ours finds it on its first day and within its days, and how often the z-score does."""
    counted: dict[tuple[str, int], dict[str, Counted]] = defaultdict(lambda: defaultdict(Counted))
    for generator in GENERATORS:
        for seed in seeds:
            one = world(generator, seed, 90)
            usual = [one.last - timedelta(days=back) for back in range(12)]
            before = next(day for day in usual[3:] if not {day + timedelta(days=after) for after in range(1, 4)} & set(one.special))
            # What cries on the clean world is no discovery.
            clean = _alarms(one, before)
            for name, days, severities in faults:
                first, last = before + timedelta(days=1), before + timedelta(days=days)
                for severity, sql in enumerate(severities):
                    one.connection.begin()
                    one.connection.execute(sql.replace("{where}", WHERE.format(first=first, last=last)))
                    alarms = _alarms(one, before, days)
                    one.connection.rollback()
                    for who, by_day in alarms.items():
                        new = [bool(seen - clean[who][day]) for day, seen in by_day.items()]
                        counted[name, severity][f"{who} at once"].add(new[0])
                        counted[name, severity][f"{who} in time"].add(any(new))
    yield from ((name, severity, by) for (name, severity), by in counted.items())


def _alarms(one: World, before: date, days: int = 3) -> dict[str, dict[date, set[str]]]:
    judged = [before + timedelta(days=after) for after in range(1, days + 1)]
    scores = _z_scores(one)
    return {"ours": {day: _ours(one, day) for day in judged}, "z-score": {day: scores.get(day, set()) for day in judged}}


def clean_years(seeds: Sequence[int], length: int = DAYS) -> Iterator[tuple[str, str, int, float]]:
    """Generator, who, and the alarms on so many clean metric-years. Alarms of a series on days that follow each other are one."""
    for generator in GENERATORS:
        alarms = {"ours": 0, "z-score": 0}
        for seed in seeds:
            one = world(generator, seed, WARM_UP + length)
            days = [BEGIN + timedelta(days=WARM_UP + day) for day in range(length)]
            scores = _z_scores(one)
            for who, seen in (("ours", {day: _ours(one, day) for day in days}), ("z-score", scores)):
                alarms[who] += sum(len(seen.get(day, set()) - seen.get(day - timedelta(days=1), set())) for day in days)
            one.connection.close()
        years = len(seeds) * length / DAYS
        yield generator, "ours", alarms["ours"], years * (2 * len(METRICS) + 1)  # in two currencies, and the volume of both
        yield generator, "z-score", alarms["z-score"], years * 2 * 2


RULE_TABLES = ("raw_postgres.orders", "raw_postgres.users", "staging.stg_postgres__orders", "marts.order_facts", "marts.user_dim", "marts.daily_revenue")
LEFT_OUT = ("stripe", "zendesk", "google_analytics")
ROWS = 1000
SAME_ROWS = {
    "rows": [
        {"table": "staging.stg_postgres__orders", "key": "order_id", "of": "raw_postgres.orders", "of_key": "id"},
        {"table": "marts.order_facts", "key": "order_id", "of": "staging.stg_postgres__orders", "of_key": "order_id"},
    ]
}


def _filled() -> duckdb.DuckDBPyConnection:
    """Tables with good rows, as tests/integration/test_contracts.py makes them, but more of them."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    for table, contract in read_contracts().items():
        if table in RULE_TABLES or table in ("staging.stg_postgres__users", "marts.user_dim_history"):
            good = [f"({contracts._good(table, one.name, one.data_type)})::{one.data_type} AS {one.name}" for one in contract.columns]
            few = ", ".join(good).replace("i * 9.99", "(i % 90) * 9.99").replace("i + 20", "i % 90 + 20")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}")
            connection.execute(f"CREATE TABLE {table} AS SELECT {few} FROM range({ROWS}) AS rows(i)")
    return connection


def rule_faults(seeds: Sequence[int]) -> Iterator[tuple[str, Counted, Counted]]:
    """Faults of rows by their kind, of one row, ten and a hundred: found by all checks, and by the contracts alone.

    Where a contract allows a share, the faults are just above it, twice and six times as many.
    """
    connection, pairs, declared = _filled(), Expectations.model_validate(SAME_ROWS), read_contracts()
    allowed = {
        (table, check.column, check.name)
        for table in RULE_TABLES
        for check in declared[table].all_checks()
        if check.body.threshold is not None and check.body.threshold.metric == "percent"
    }
    faults = [(check, table, column, breaks) for table, column, check, breaks in contracts.BROKEN if table in RULE_TABLES and "rowid = 0" in breaks]
    faults += [("lost rows", table, None, f"DELETE FROM {table} WHERE rowid = 0") for table in ("staging.stg_postgres__orders", "marts.order_facts")]
    kinds: dict[str, tuple[Counted, Counted]] = defaultdict(lambda: (Counted(), Counted()))
    for kind, table, column, breaks in faults:
        severities = (ROWS // 20 + 1, ROWS // 10, ROWS * 3 // 10) if (table, column, kind) in allowed else (1, 10, 100)
        for seed in seeds:
            for severity in severities:
                begin = int(np.random.default_rng(seed).integers(0, ROWS - severity))
                connection.begin()
                rows = f"rowid BETWEEN {begin} AND {begin + severity - 1}"
                connection.execute(breaks.replace("rowid = 0", rows).replace("user_id = 999", "user_id = 999_999"))
                seen = check_contracts(connection, now=contracts.NOW, loaded_at=contracts.LOADED_AT, only=[table], left_out=LEFT_OUT)
                lost = check_completeness(connection, pairs, contracts.NOW)
                connection.rollback()
                by_contract = [found for found in seen if found.check not in ("schema", "evaluation")]
                everything, alone = kinds[kind]
                everything.add(bool(by_contract or lost))
                alone.add(bool(by_contract))
    yield from ((kind, *counted) for kind, counted in sorted(kinds.items()))


def stale(seeds: Sequence[int]) -> Counted:
    """A load that ended six hours and a minute ago (and a fresh one beside it, which must not be told)."""
    from monitoring.freshness import check_freshness

    counted = Counted()
    for seed in seeds:
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=int(np.random.default_rng(seed).integers(0, 3e7)))
        found = check_freshness([], now=now, loaded_at={"raw_a.b": now - timedelta(hours=6, minutes=1), "raw_a.c": now - timedelta(hours=6)})
        counted.add([one.table for one in found] == ["raw_a.b"])
    return counted


def scan() -> float:
    """Seconds to judge the days of 20 tables of a million rows each, in this process."""
    one = world("season", REPORTED, 100)
    ((held,),) = one.connection.execute("SELECT count(*) FROM marts.orders").fetchall()
    tables = [f"marts.t{number}" for number in range(20)]
    for table in tables:
        many = f"SELECT orders.* FROM marts.orders AS orders, range({1_000_000 // held + 1}) LIMIT 1_000_000"
        one.connection.execute(f"CREATE TABLE {table} AS {many}")
    watched = one.expectations.anomalies["marts.orders"]
    began = time.monotonic()
    check_anomalies(one.connection, Expectations(anomalies=dict.fromkeys(tables, watched)), _morning_after(one.last))
    return time.monotonic() - began


def report(first: int, faults: int, years: int, rules: int) -> str:
    """Everything measured, as Markdown."""
    lines: list[str] = []

    def table(head: str, rows: Sequence[Sequence[str]]) -> None:
        lines.extend((head, "|---" * head.count("|", 1) + "|", *(f"| {' | '.join(row)} |" for row in rows), ""))

    found = list(gradual_faults(range(first, first + faults)))
    names = ("mild", "middle", "grave")
    lines.append("## Faults that show in the days\n")
    lines.append(f"{faults} seeds of each generator here, {years} clean years of each and {rules} seeds of each fault of single rows below.\n")
    table(
        "| fault | severity | ours, first day | ours, while it lasts | 14-day z-score, while it lasts |",
        [[name, names[severity], str(by["ours at once"]), str(by["ours in time"]), str(by["z-score in time"])] for name, severity, by in found],
    )
    lines.append("## Faults of single rows\n")
    table(
        "| kind | found by all checks | by the contracts alone |",
        [*([kind, str(everything), str(alone)] for kind, everything, alone in rule_faults(range(first, first + rules))),
         ["staleness 6h01", str(stale(range(first, first + 200))), "not looked at"]],
    )  # fmt: skip
    lines.append("## Clean years\n")
    table(
        "| generator | who | alarms per metric and year |",
        [[generator, who, rate(alarms, metric_years)] for generator, who, alarms, metric_years in clean_years(range(first, first + years))],
    )
    lines += ["## Speed\n", f"The days of 20 tables of a million rows each, five metrics in two segments, in-process: {scan():.1f} s."]
    return "\n".join(lines)


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a look: few seeds, minutes instead of an hour")
    parser.add_argument("--tuning", action="store_true", help="on the seeds on which the limits are chosen, not on those that are reported")
    parser.add_argument("--write", action="store_true", help="write docs/monitoring-figures.md")
    given = parser.parse_args()
    first = TUNING if given.tuning else REPORTED
    faults, years, rules = (5, 2, 1) if given.short else (20, 10, 20)
    text = report(first, faults, years, rules)
    say(text)
    if given.write:
        head = REPORT.read_text().split("## Faults that show")[0]
        REPORT.write_text(head.rstrip("\n") + "\n\n" + text + "\n")


if __name__ == "__main__":
    main()
