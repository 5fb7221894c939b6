"""The main job, run as an operator runs it: first whole, then nothing new, then edits; and each verb alone."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Company, Ran
from e2e.homes import Cost, Home, company_of, copy_checkout
from e2e.truth import Rows, differences, fingerprint, production, published, reading

from demo.server import Server

pytestmark = pytest.mark.xdist_group("main job")  # they share the runs of one home

OLD_ORDER = 4_711
EDITED_USERS = "1, 77, 23570"
STRIPE_MARTS = {
    "balance_reconciliation",
    "balance_transaction_facts",
    "dispute_facts",
    "payment_facts",
    "refund_facts",
    "subscription_history",
    "mrr_movements",
    "mrr_by_subscription_month",
    "subscription_retention",
    "subscription_facts",
}
SUPPORT_MARTS = {"business_hours", "schedule_history", "support_daily", "ticket_backlog_daily", "ticket_facts", "ticket_status_history"}
ACQUISITION_MARTS = {"acquisition_daily", "attribution", "customer_acquisition_cost", "funnel_daily", "marketing_spend"}
REVENUE_MARTS = {"daily_revenue", "daily_revenue_reporting", "exchange_rates"}
CUSTOMER_MARTS = {"customer_360", "customer_predictions", "churned_customers", "identity_map", "date_dim", "consents", "marketing_audience"}
CORE_MARTS = {"cohort_retention", "customer_lifetime_value", "order_facts", "user_dim", "user_dim_history"}
MARTS = CORE_MARTS | REVENUE_MARTS | STRIPE_MARTS | CUSTOMER_MARTS | SUPPORT_MARTS | ACQUISITION_MARTS
STEPS = [("load", "postgres"), ("transform", ""), ("check", ""), ("publish", "")]


@dataclass
class Moment:
    """One run and what stood there after it."""

    ran: Ran
    cost: Cost
    wrong: list[str]
    marts: dict[str, Rows]
    recorded: dict[str, Any]

    def step(self, name: str) -> dict[str, Any]:
        """The record of one of its steps that ran."""
        found: dict[str, Any] = next(step for step in self.recorded["steps"] if step["step"] == name and step["status"] != "skipped")
        return found


@dataclass
class Story:
    """The runs of one home: the first, one with nothing new, one after 500 edited orders, one after edited users."""

    home: Home
    outside: Path
    first: Moment
    idle: Moment
    edited: Moment
    users_edited: Moment


@pytest.fixture(scope="module")
def company(company_server: Server) -> Iterator[Company]:
    """A company of this module's own."""
    with company_of(company_server, f"main_job_{os.getpid()}") as own:
        yield own


@pytest.fixture(scope="module")
def story(company: Company, no_settings: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Everything that happens to the home, in order; the tests only look at it."""
    folder = tmp_path_factory.mktemp("main_job")
    outside = folder / "outside"
    for name in ("home", "tmp"):
        (outside / name).mkdir(parents=True)
    home = Home(folder / "warehouse", company)

    def moment() -> Moment:
        ran, cost = home.measured("run", HOME=str(outside / "home"), TMPDIR=str(outside / "tmp"))
        assert ran.code == 0, ran.err
        return Moment(ran, cost, differences(home.folder, production(company)), published(home.folder), home.runs(1)[0])

    first, idle = moment(), moment()
    company.execute(
        "UPDATE shop.orders SET status = 'returned', updated_at = now() WHERE id % 139 = 1 AND id <= 139 * 499",
        f"UPDATE shop.orders SET revenue = revenue + 1, updated_at = now() WHERE id = {OLD_ORDER}",
    )
    edited = moment()
    company.execute(f"UPDATE shop.users SET country = 'FR', segment = 'enterprise', age = age + 1, updated_at = now() WHERE id IN ({EDITED_USERS})")
    return Story(home, outside, first, idle, edited, moment())


@pytest.mark.parametrize("name", ["first", "idle", "edited", "users_edited"])
def test_after_every_run_the_marts_are_productions_own_answer(story: Story, name: str) -> None:
    assert getattr(story, name).wrong == []


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM marts.order_facts", 69_659),
        ("SELECT count(*) FROM marts.user_dim", 23_570),
        ("SELECT sum(units)::BIGINT FROM marts.daily_revenue", 167_881),
        ("SELECT sum(revenue) FROM marts.daily_revenue", Decimal("2500316.63")),  # the published 2,500,315.63 and the edit of one order
        ("SELECT sum(revenue) FROM marts.daily_revenue WHERE date BETWEEN '1998-06-01' AND '1998-06-30'", Decimal("76109.30")),
    ],
)
def test_a_plain_duckdb_client_reads_the_known_totals(story: Story, query: str, answer: int | Decimal) -> None:
    with reading(story.home.folder) as connection:
        assert connection.execute(query).fetchall() == [(answer,)]


def test_the_first_run_gives_the_published_totals(story: Story) -> None:
    days = story.first.marts["daily_revenue"]
    assert sum(orders for _, _, orders, *_ in days) == 69_659
    assert sum(row[5] for row in days) == Decimal("2500315.63")
    assert sum(row[5] for row in days if row[0] < date(1997, 2, 1)) == Decimal("299060.17")
    assert sum(row[5] for row in days if row[0] >= date(1998, 6, 1)) == Decimal("76109.30")


def test_readers_see_what_every_column_means(story: Story) -> None:
    with reading(story.home.folder) as connection:
        columns = connection.execute("SELECT table_name, column_name, comment FROM duckdb_columns() WHERE schema_name = 'marts'").fetchall()
    assert {table for table, _, _ in columns} == MARTS
    assert [column for column in columns if not column[2]] == []


def test_runs_and_steps_are_recorded_in_the_warehouse_as_status_tells_them(story: Story) -> None:
    with duckdb.connect(str(story.home.folder / "warehouse.duckdb"), read_only=True) as connection:
        runs = connection.execute("SELECT run_id, command, status, error, versions, ended_at > started_at FROM ops.runs ORDER BY started_at").fetchall()
        query = "SELECT run_id, step, item, status, rows_in, rows_out, seconds > 0 FROM ops.run_steps ORDER BY run_id, position"
        steps = connection.execute(query).fetchall()
    told = list(reversed(story.home.runs()))
    assert [run[0] for run in runs] == [run["run_id"] for run in told]
    assert [(command, status, error, ended) for _, command, status, error, _, ended in runs] == [("run", "succeeded", None, True)] * 4
    assert all(json.loads(run[4]).keys() >= {"duckdb", "dlt", "sqlmesh", "soda-core", "startup-warehouse"} for run in runs)
    recorded = [(step["run_id"], step["step"], step["item"], step["status"], step["rows_in"], step["rows_out"], True) for run in told for step in run["steps"]]
    assert sorted(steps, key=str) == sorted(recorded, key=str)
    for run in told:
        left_out = [(step["step"], step["item"]) for step in run["steps"] if step["status"] == "skipped"]
        assert left_out == [("load", "google_analytics"), ("load", "stripe"), ("load", "zendesk")]  # they have no key in this company
        steps_run = [step for step in run["steps"] if step["step"] != "compare keys" and step["status"] != "skipped"]
        assert [(step["step"], step["item"], step["status"]) for step in steps_run] == [(*step, "succeeded") for step in STEPS]
    first = story.first
    assert (first.step("load")["rows_in"], first.step("load")["rows_out"]) == (93_229, 93_229)
    days = len({row[0] for row in first.marts["daily_revenue"]})  # daily_revenue_reporting and support_daily have a row for each; Stripe's are empty
    won = 3  # marts.customer_acquisition_cost: all customers came in the first quarter, and nothing is known of where from
    with reading(story.home.folder) as connection:
        more = sum(connection.execute(f"SELECT count(*) FROM marts.{mart}").fetchall()[0][0] for mart in CUSTOMER_MARTS)  # no edit adds or takes a row
    published = sum(len(rows) for rows in first.marts.values()) + 2 * days + won + more
    assert first.step("publish")["rows_in"] == first.step("publish")["rows_out"] == published


def test_a_source_without_a_key_is_said_to_be_left_out_of_the_checks(story: Story) -> None:
    left_out = ["google_analytics", "stripe", "zendesk"]
    told = "".join(f"{source}\tnot configured and never loaded\n" for source in left_out)
    assert f"# not checked\tsource\twhy\n{told}" in story.first.ran.out
    assert json.loads(story.first.step("check")["detail"])["not_checked"] == left_out


def test_status_tells_that_the_source_is_fresh_and_where_to_read(story: Story) -> None:
    told = json.loads(story.home.warehouse("status", "--json").out)
    assert [(source["source"], source["is_fresh"]) for source in told["sources"]] == [
        ("google_analytics", False),
        ("postgres", True),
        ("stripe", False),
        ("zendesk", False),
    ]
    assert told["read_copy"] == str(story.home.folder / "published" / "warehouse.duckdb")
    assert told["writing_now"] is False


def test_a_run_with_nothing_new_moves_no_row(story: Story) -> None:
    load, publish = story.idle.step("load"), story.idle.step("publish")
    assert (load["rows_in"], load["rows_out"], publish["rows_out"]) == (0, 0, 0)
    assert json.loads(publish["detail"]) == {"rewritten": []}


def test_500_edited_orders_move_500_rows(story: Story) -> None:
    load = story.edited.step("load")
    assert (load["rows_in"], load["rows_out"]) == (500, 500)
    assert set(json.loads(story.edited.step("publish")["detail"])["rewritten"]) == {
        "order_facts", "daily_revenue", "daily_revenue_reporting", "customer_lifetime_value", "customer_360", "customer_predictions",
    }  # fmt: skip


def test_an_edit_of_an_old_order_moves_its_own_day_alone(story: Story) -> None:
    before, after = (set(moment.marts["daily_revenue"]) for moment in (story.idle, story.edited))
    ((day,),) = story.home.company.rows(f"SELECT (ordered_at AT TIME ZONE 'UTC')::date FROM shop.orders WHERE id = {OLD_ORDER}")
    assert day < date(1998, 7, 1)
    ((was,), (now,)) = before - after, after - before
    assert now == (*was[:5], was[5] + 1)
    assert was[0] == day


def test_an_edited_user_has_a_new_version_from_the_moment_the_old_one_ends(story: Story) -> None:
    with reading(story.home.folder) as connection:
        current = connection.execute(f"SELECT user_id, country, segment FROM marts.user_dim WHERE user_id IN ({EDITED_USERS}) ORDER BY 1").fetchall()
        assert current == [(user, "FR", "enterprise") for user in (1, 77, 23_570)]
        history = connection.execute(
            "SELECT user_id, age, valid_from, valid_to, lead(valid_from) OVER versions, lead(age) OVER versions FROM marts.user_dim_history "
            f"WHERE user_id IN ({EDITED_USERS}) WINDOW versions AS (PARTITION BY user_id ORDER BY valid_from) ORDER BY user_id, valid_from"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM marts.user_dim_history").fetchall() == [(23_570 + 3,)]
    assert len(history) == 6
    for (_, age, valid_from, valid_to, next_from, next_age), (_, _, _, still, _, _) in zip(history[::2], history[1::2], strict=True):
        assert valid_from < valid_to == next_from
        assert (still, next_age) == (None, age + 1)


@pytest.mark.parametrize(("name", "seconds", "cpu_seconds"), [("first", 60, 30), ("idle", 15, 10), ("edited", 15, 10)])
def test_a_run_stays_within_its_means(story: Story, name: str, seconds: float, cpu_seconds: float) -> None:
    cost = getattr(story, name).cost
    assert cost.seconds <= seconds * cost.waiting, cost
    assert cost.cpu_seconds <= cpu_seconds * cost.slowness, cost
    assert 100 < cost.megabytes <= 1_000, cost


def test_output_is_plain_when_nobody_watches(story: Story) -> None:
    for moment in (story.first, story.idle, story.edited):
        assert "\x1b" not in moment.ran.out
        assert moment.ran.err == ""


def test_each_verb_works_alone_and_writes_nothing_outside_its_home(story: Story, company_server: Server, built_empty: Path, tmp_path: Path) -> None:
    """A second home beside the first, of another company, run from a checkout of its own, so that every stray file is seen."""
    checkout, outside = copy_checkout(tmp_path / "checkout"), tmp_path / "outside"
    for name in ("home", "tmp"):
        (outside / name).mkdir(parents=True)
    before, neighbour = _files(checkout), fingerprint(story.home.folder)
    with company_of(company_server, f"verbs_{os.getpid()}") as company:
        company.execute("UPDATE shop.orders SET revenue = revenue * 2")
        home = Home(shutil.copytree(built_empty, tmp_path / "warehouse"), company, checkout)
        question = "SELECT count(*) AS orders FROM marts.order_facts"
        verbs = [("load", "postgres"), ("transform",), ("check",), ("publish",), ("status",), ("query", question), ("doctor",), ("check", "--json")]
        said = {}
        for verb in verbs:
            ran, _ = home.measured(*verb, HOME=str(outside / "home"), TMPDIR=str(outside / "tmp"))
            assert (ran.code, ran.err) == (0, ""), (verb, ran.err)
            assert "\x1b" not in ran.out, verb
            said[verb[0]] = ran.out
        assert "WRONG" not in said["doctor"]
        assert said["query"] == "# result\torders\n69659\n"
        assert said["check"] == ""
        assert differences(home.folder, production(company)) == []
        recorded = [json.loads(line)["command"] for line in (home.folder / "logs" / "warehouse.jsonl").read_text().splitlines() if '"begin"' in line]
    assert recorded == ["load postgres", "transform", "check", "publish", "check"]
    assert _files(checkout) == before
    assert [*(outside / "home").iterdir(), *(outside / "tmp").iterdir()] == []
    assert fingerprint(story.home.folder) == neighbour
    assert len(story.home.runs()) == 4


def test_the_runs_wrote_nothing_outside_their_home(story: Story) -> None:
    assert [*(story.outside / "home").iterdir(), *(story.outside / "tmp").iterdir()] == []


def _files(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}
