"""What follows from one cause is one incident, its cause first; what does not is another."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from monitoring.contract_files import read_contracts
from monitoring.findings import Finding
from monitoring.incidents import grouped
from monitoring.lineage import read_lineage

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LINEAGE = read_lineage()
STAGED = "staging.stg_postgres__"


def _finding(check: str, table: str, column: str | None = None) -> Finding:
    return Finding(check, table, column, "warning" if check == "schema change" else "error", "", "", NOW, "")


def _groups(*findings: Finding) -> list[list[str]]:
    return [[f"{one.table} {one.check}" for one in group.findings] for group in grouped(findings, LINEAGE)]


def test_lineage_is_read_from_the_models_and_knows_every_contracted_model() -> None:
    seeds = {"marts.exchange_rates", "marts.marketing_spend"}
    models = {table for table in read_contracts() if not table.startswith("raw_")} - seeds
    assert models <= LINEAGE.inputs.keys()
    assert all(any(one.startswith("raw_") for one in LINEAGE.above(table)) for table in models)
    assert "raw_postgres.orders" in LINEAGE.above("marts.customer_lifetime_value")
    assert "marts.daily_revenue" in LINEAGE.marts_below("raw_stripe")
    assert "marts.user_dim" not in LINEAGE.marts_below("raw_stripe")


@pytest.mark.parametrize("seed", range(5))
def test_a_source_that_failed_and_its_stale_tables_are_one_incident_whatever_came_first(seed: int) -> None:
    stale = [_finding("freshness", table) for table in read_contracts() if table.startswith("raw_stripe")]
    findings = [_finding("run failed", "raw_stripe"), *stale, _finding("completeness", "marts.payment_facts"), _finding("freshness", "raw_postgres.users")]
    random.Random(seed).shuffle(findings)
    stripe, postgres = sorted(grouped(findings, LINEAGE), key=lambda group: -len(group.findings))
    assert (stripe.cause.check, len(stripe.findings)) == ("run failed", len(stale) + 2)
    assert [one.table for one in postgres.findings] == ["raw_postgres.users"]


def test_the_tables_of_a_stale_source_are_one_incident_that_keeps_its_name() -> None:
    tables = [_finding("freshness", f"raw_postgres.{table}") for table in ("users", "orders")]
    both, one = grouped(tables, LINEAGE), grouped(tables[1:], LINEAGE)
    assert [len(group.findings) for group in both] == [2]
    assert both[0].key == one[0].key


METRICS = [
    ("unusual volume", None), ("unusual volume (EUR)", None), ("unusual mean (EUR)", "revenue"), ("unusual null rate (EUR)", "country"),
    ("unusual distinct share (EUR)", "user_id"), ("unusual sum", "revenue"), ("unusual sum (EUR)", "revenue"),
    ("unusual something of a later version", None),
]  # fmt: skip
"""In the order in which they say what happened."""


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_unusual_about_a_table_is_one_incident_that_keeps_its_name_while_metrics_join_and_leave(seed: int) -> None:
    choose = random.Random(seed)
    everything = [_finding(check, "marts.order_facts", column) for check, column in METRICS]
    names = set()
    for _ in range(20):
        some = choose.sample(everything, choose.randint(1, len(everything)))
        other = _finding("unusual sum", "marts.payment_facts", "net_amount")
        mine, others = sorted(grouped([*some, other], LINEAGE), key=lambda group: group.cause.table)
        assert mine.cause == min(some, key=everything.index)
        assert {one.fingerprint for one in mine.findings} == {one.fingerprint for one in some}
        assert others.findings == (other,)
        names.add(mine.key)
    assert len(names) == 1


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        (  # the same rule, broken further down
            [
                ("duplicate", "marts.order_facts", "order_id"),
                ("duplicate", "staging.stg_postgres__orders", "order_id"),
                ("duplicate", "raw_postgres.orders", "id"),
            ],
            [3],
        ),
        ([("missing", "raw_postgres.users", "country"), ("share_of_x", "marts.user_dim", "country")], [2]),
        ([("missing", "raw_postgres.users", "country"), ("not_negative", "marts.order_facts", "revenue")], [1, 1]),
        ([("missing", "marts.user_dim", "country"), ("missing", "marts.user_dim", "segment")], [1, 1]),
        (
            [("schema change", "raw_postgres.users", "country"), ("schema", f"{STAGED}users", "country"), ("evaluation", "marts.user_dim", None)],
            [3],
        ),
        ([("schema", "marts.user_dim", None), ("evaluation", "marts.user_dim", None)], [2]),
        ([("run failed", "raw_postgres", None), ("not_negative", "marts.order_facts", "revenue")], [1, 1]),
        ([("run failed", "raw_postgres", None), ("run failed", "published", None)], [1, 1]),
        (  # an audit stopped the build of what has the wrong rows, and what was not built lacks rows
            [
                ("not_negative", "raw_postgres.orders", "revenue"),
                ("audit amount_is_valid", "marts.order_facts", None),
                ("completeness", "marts.order_facts", None),
                ("audit totals_match", "marts.daily_revenue", None),
            ],
            [4],
        ),
        ([("duplicate", "marts.order_facts", "order_id"), ("completeness", "marts.order_facts", None)], [2]),
        ([("unusual deletes", "raw_postgres.orders", None), ("unusual volume", "marts.order_facts", None)], [2]),
        ([("unusual deletes", "raw_postgres.orders", None), ("unusual sum", "marts.order_facts", "revenue")], [2]),
        ([("not_negative", "marts.order_facts", "revenue"), ("unusual sum", "marts.order_facts", "revenue")], [2]),
        ([("missing", "marts.order_facts", "country"), ("unusual volume", "marts.order_facts", None)], [1, 1]),
        ([("schema change", "raw_postgres.users", "country"), ("missing", "raw_postgres.users", "country")], [2]),
        ([("audit orders_match_staging", "marts.order_facts", None), ("completeness", "marts.order_facts", None)], [2]),
        ([("audit orders_match_staging", "marts.order_facts", None), ("freshness", "raw_postgres.orders", None)], [1, 1]),
        ([("freshness", "raw_postgres.users", None), ("missing", "raw_postgres.users", "country")], [1, 1]),
    ],
)
def test_what_follows_from_what(findings: Sequence[tuple[str, str, str | None]], expected: list[int]) -> None:
    for order in (findings, findings[::-1]):
        groups = grouped([_finding(*one) for one in order], LINEAGE)
        assert [len(group.findings) for group in groups] == expected
        if len(expected) == 1:
            deepest = min(order, key=lambda one: (one[0] == "evaluation", len(LINEAGE.above(one[1]))))
            assert groups[0].cause.table == deepest[1]


def test_no_finding_is_ever_lost_or_told_twice() -> None:
    choose = random.Random(9)
    checks = ["run failed", "freshness", "completeness", "schema", "schema change", "evaluation", "missing", "duplicate", "row_count"]
    tables = [*read_contracts(), "raw_stripe", "marts", "warehouse", "published"]
    for _ in range(200):
        found = [_finding(choose.choice(checks), choose.choice(tables), choose.choice([None, "id", "country"])) for _ in range(20)]
        findings = {one.fingerprint: one for one in found}
        groups = grouped(list(findings.values()), LINEAGE)
        told = [one.fingerprint for group in groups for one in group.findings]
        assert sorted(told) == sorted(findings)
        assert len({group.key for group in groups}) == len(groups)
        again = grouped([replace(one, observed="changed") for one in findings.values()], LINEAGE)
        assert [group.key for group in again] == [group.key for group in groups]


def test_of_several_cascades_at_once_each_has_its_own_cause_first_whatever_was_seen_first() -> None:
    """Two sources fail or have bad rows at the same time; what was seen of each further down is a random part of it."""
    choose = random.Random(18)
    below = {
        cause: [table for table in LINEAGE.inputs if LINEAGE.is_above(cause, table)]
        for cause in ("raw_postgres.orders", "raw_postgres.users", "raw_stripe.charges", "raw_zendesk.tickets", "raw_google_analytics.pages")
    }
    for _ in range(300):
        first, second = choose.sample(sorted(below), 2)
        expected, findings = {}, []
        for cause, kind in ((first, "bad rows"), (second, choose.choice(["failed", "bad rows"]))):
            if kind == "failed":
                root = _finding("run failed", cause.split(".")[0])
                source = [table for table in read_contracts() if table.startswith(f"{root.table}.")]
                follow = [_finding("freshness", table) for table in source]
            else:
                check = "duplicate" if cause == first else "not_negative"
                root = _finding(check, cause, "id")
                follow = [_finding(check, table, "other") for table in choose.sample(below[cause], choose.randint(0, len(below[cause])))]
            expected[root.fingerprint] = {one.fingerprint for one in (root, *follow)}
            findings += [root, *follow]
        choose.shuffle(findings)
        groups = grouped(findings, LINEAGE)
        assert {group.cause.fingerprint: {one.fingerprint for one in group.findings} for group in groups} == expected
