"""The unit tests of the models pass, and the house rules refuse what they are there to refuse."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlmesh.core.dialect import parse
from sqlmesh.core.model import load_sql_based_model

from linter import rules
from transform.build import open_context
from transform.lint import main
from warehouse.settings import ROOT

HOUSE_RULES = {name: rule for name, rule in vars(rules).items() if isinstance(rule, type) and issubclass(rule, rules.HouseRule) and rule is not rules.HouseRule}
GOOD = """
MODEL (
  name marts.visits,
  kind FULL,
  owner data,
  grain (page, day),
  description 'Visits.',
  column_descriptions (page = 'Path seen.', day = 'UTC day.', visits = 'How often.'),
  audits (not_null(columns := (page, day, visits)), unique_combination_of_columns(columns := (page, day)))
);
WITH loaded AS (SELECT * FROM staging.stg_web__visits WHERE day > '1997-01-01'), days AS (SELECT page, day FROM loaded)
SELECT page::TEXT AS page, day::DATE AS day, COUNT(*)::BIGINT AS visits FROM days GROUP BY page, day
"""
PLACE = "models/marts/web/visits.sql"
NULLS = "not_null(columns := (page, day, visits))"
UNIQUE = "unique_combination_of_columns(columns := (page, day))"
WEB = "staging.stg_web__visits WHERE day > '1997-01-01'"
NO_OWNER = "no owner: write `owner <team>` into the header, the team that answers for the model (completeheader)"
WRONG: list[tuple[str, str, str, str]] = [
    ("CompleteHeader", "owner data,", "", "no owner: write `owner <team>`"),
    ("CompleteHeader", "grain (page, day),", "", "no grain: write `grain <column>`"),
    ("CompleteHeader", "description 'Visits.',", "", "no description: write `description '…'`"),
    ("CompleteHeader", "grain (page, day)", "grain (page, hour)", "the grain names hour, which is not a column"),
    ("EveryColumnDescribed", ", visits = 'How often.'", "", "column visits is not described"),
    ("EveryColumnDescribed", "visits = 'How often.'", "visits = ' '", "column visits is not described"),
    ("EveryColumnDescribed", "column_descriptions (page = 'Path seen.', day = 'UTC day.', visits = 'How often.'),", "", "column visits is not described"),
    ("EveryColumnDescribed", "visits = 'How often.'", "visits = 'How often.', hour = 'Hour.'", "column_descriptions describes hour, which is not a column"),
    ("ExplicitCasts", "COUNT(*)::BIGINT AS visits", "COUNT(*) AS visits", "column visits has no explicit cast"),
    ("ExplicitCasts", "SELECT page::TEXT AS page", "SELECT page", "column page has no explicit cast"),
    ("ExplicitCasts", "GROUP BY page, day", "GROUP BY page, day UNION ALL SELECT 'a'::TEXT AS page, day, 1::BIGINT AS visits FROM days", "column day has no"),
    ("StarOnlyInImportCtes", "SELECT page, day FROM loaded", "SELECT * FROM loaded", "`SELECT * FROM loaded` is no import CTE"),
    ("StarOnlyInImportCtes", "SELECT page, day FROM loaded", "SELECT l.* FROM loaded AS l", "`SELECT l.* FROM loaded AS l` is no import CTE"),
    ("StarOnlyInImportCtes", "WHERE day > '1997-01-01'", "CROSS JOIN staging.stg_web__pages", "is no import CTE"),
    ("StarOnlyInImportCtes", "FROM days GROUP", "FROM (SELECT * FROM days) GROUP", "`SELECT * FROM days` is no import CTE"),
    ("MartsAreAudited", UNIQUE, "number_of_rows(threshold := 1)", f"nothing proves that the grain is unique: add `{UNIQUE.replace('page, day', 'day, page')}`"),
    ("MartsAreAudited", UNIQUE, "unique_combination_of_columns(columns := (page, day, visits))", "nothing proves that the grain is unique"),
    ("MartsAreAudited", UNIQUE, UNIQUE.replace("))", "), condition := visits > 0)"), "nothing proves that the grain is unique"),
    ("MartsAreAudited", UNIQUE, UNIQUE.replace("))", "), blocking := FALSE)"), "nothing proves that the grain is unique"),
    ("MartsAreAudited", "grain (page, day)", "grain page", "nothing proves that the grain is unique: add `unique_values(columns := (page))`"),
    ("MartsAreAudited", NULLS, "not_null(columns := (page, visits))", "the grain may be null: add `not_null(columns := (day, page))`"),
    *(
        ("MeaningsSayMore", "'How often.'", f"'{echo}'", f"the meaning of visits, '{echo}', only repeats its name")
        for echo in ("Visits", "The visit.", "VISITS of its", "TODO", "...")
    ),
    ("MoneyNamesItsCurrency", "COUNT(*)::BIGINT AS visits", "SUM(1)::DECIMAL(18, 2) AS visits", "visits looks like money, and nothing says in which currency"),
    *(
        ("OnlyLiveRows", WEB, f"staging.stg_stripe__visits{wrong}", "read it as `WITH … AS (SELECT * FROM staging.stg_stripe__visits WHERE is_live)`")
        for wrong in (
            "",
            " WHERE NOT is_live",
            " WHERE is_live OR day > '1997-01-01'",
            " WHERE day > '1997-01-01' AND is_live IS NULL",
            " WHERE is_live = FALSE AND day > '1997-01-01'",
            " AS visits JOIN staging.stg_web__pages AS pages ON pages.page = visits.page WHERE is_live",
        )
    ),
    ("PathIsTheName", "name marts.visits", "name marts.visit", "the name is marts.visit, the path says marts.visits"),
    ("PathIsTheName", "name marts.visits", "name staging.visits", "the name is staging.visits, the path says marts.visits"),
]


def _refused_by(rule: str, sql: str, place: str = PLACE) -> list[str]:
    model = load_sql_based_model(parse(sql, default_dialect="duckdb"), path=ROOT / place, dialect="duckdb")
    return [violation.violation_msg for violation in HOUSE_RULES[rule](SimpleNamespace(path=ROOT)).check_model(model)]


@pytest.mark.usefixtures("home")
def test_every_model_test_passes_and_every_house_rule_is_on() -> None:
    said = StringIO()
    with open_context() as context:
        result = context.test(stream=said)
        rules_on = context.config.linter.rules
    assert result.testsRun > 0
    assert result.wasSuccessful(), "\n".join(f"{test}\n{trace}" for test, trace in (*result.failures, *result.errors))
    assert {name.lower() for name in HOUSE_RULES} <= rules_on


@pytest.mark.parametrize("rule", sorted(HOUSE_RULES))
def test_a_good_model_breaks_no_house_rule(rule: str) -> None:
    assert _refused_by(rule, GOOD) == []


@pytest.mark.parametrize(
    "right", ["WHERE is_live", "WHERE is_live AND day > '1997-01-01'", "AS visits WHERE day > '1997-01-01' AND (page = '/' AND visits.is_live)"]
)
def test_stripe_s_objects_are_read_where_only_live_ones_are_asked_for(right: str) -> None:
    assert _refused_by("OnlyLiveRows", GOOD.replace(WEB, f"staging.stg_stripe__visits {right}", 1)) == []


@pytest.mark.parametrize(
    ("column", "kind", "meaning", "beside", "refused"),
    [
        ("revenue", "DECIMAL(18, 2)", "Sum paid.", "", True),
        ("revenue", "DOUBLE", "Sum paid.", "", True),
        ("expansion", "DECIMAL(18, 2)", "What grew.", "", True),
        ("revenue", "DECIMAL(18, 2)", "Sum paid, in the settlement currency.", "", False),
        ("revenue", "DECIMAL(18, 2)", "Sum paid, in EUR.", "", False),
        ("revenue_eur", "DECIMAL(18, 2)", "Sum paid.", "", False),
        ("revenue", "DECIMAL(18, 2)", "Sum paid.", "currency", False),
        ("revenue", "DECIMAL(18, 2)", "Sum paid.", "reporting_currency", False),
        ("revenue", "DECIMAL(18, 2)", "Sum paid.", "from_currency to_currency", True),
        ("refund_rate", "DECIMAL(9, 6)", "Refunds by payments.", "", False),
        ("bounced", "DECIMAL(9, 6)", "Those who left, 0 to 1.", "", False),
        ("reply_minutes", "DECIMAL(9, 2)", "Until the first reply.", "", False),
        ("engagement", "DOUBLE", "How long.", "", False),
    ],
)
def test_an_amount_names_its_currency_or_has_one_beside_it(column: str, kind: str, meaning: str, beside: str, refused: bool) -> None:
    more = "".join(f", 'EUR'::TEXT AS {name}" for name in beside.split())
    sql = GOOD.replace("COUNT(*)::BIGINT AS visits", f"SUM(1)::{kind} AS {column}{more}", 1).replace("visits = 'How often.'", f"{column} = '{meaning}'", 1)
    assert bool(_refused_by("MoneyNamesItsCurrency", sql)) == refused


@pytest.mark.parametrize("rule", ["MeaningsSayMore", "MoneyNamesItsCurrency"])
def test_what_a_source_calls_its_columns_is_left_to_staging(rule: str) -> None:
    sql = GOOD.replace("marts.visits", "staging.stg_web__visits", 1).replace("'How often.'", "'Visits.'", 1).replace("::BIGINT", "::DECIMAL(9, 2)", 1)
    assert _refused_by(rule, sql) == []


def test_each_house_rule_is_tried() -> None:
    assert {rule for rule, *_ in WRONG} == set(HOUSE_RULES)


@pytest.mark.parametrize(("rule", "right", "wrong", "expected"), WRONG)
def test_a_house_rule_refuses_and_says_what_to_write(rule: str, right: str, wrong: str, expected: str) -> None:
    assert right in GOOD
    assert any(expected in message for message in _refused_by(rule, GOOD.replace(right, wrong, 1)))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("models/staging/web/stg_web__visits.sql", "staging.stg_web__visits"),
        ("models/marts/visits.sql", None),
        ("models/staging/web/stg_shop__visits.sql", None),
        ("models/visits.sql", None),
        ("models/extra/web/visits.sql", None),
    ],
)
def test_a_path_is_a_name_or_no_place_for_a_model(place: str, name: str | None) -> None:
    messages = _refused_by("PathIsTheName", GOOD.replace("marts.visits", name or "marts.visits", 1), place)
    assert messages == [] if name else "no place for a model: move it to" in messages[0]


def test_the_project_is_in_order_and_linting_it_needs_no_warehouse_and_no_secret(home: Path, setting: Callable[[str, str | None], None]) -> None:
    setting("WAREHOUSE_STORAGE", "motherduck")
    assert main([]) == 0
    assert os.environ["WAREHOUSE_STORAGE"] == "motherduck"
    assert os.environ["WAREHOUSE_HOME"] == str(home)
    assert not home.exists()


def test_linting_names_file_and_rule_and_writing_mends_the_layout_and_nothing_else(tmp_path: Path) -> None:
    for part in ("audits", "external_models", "linter", "macros", "models", "privacy", "tests/models", "transform", "warehouse"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    for other in {*(tmp_path / "models").rglob("*.*")} - {*(tmp_path / "models").glob("*/postgres/*"), *(tmp_path / "models/marts/core").glob("user_dim*")}:
        other.unlink()  # a few models take a few seconds
    model, audit = tmp_path / "models/marts/core/user_dim.sql", tmp_path / "audits/users_match_staging.sql"
    laid_out, macros = audit.read_text(), (tmp_path / "macros/incremental.py").read_text()
    model.write_text(model.read_text().replace("  owner data,\n", ""))
    audit.write_text(laid_out.replace("SELECT\n", "select "))

    code, said = _lint(tmp_path)
    assert (code, said) == (1, [f"models/marts/core/user_dim.sql: {NO_OWNER}", "audits/users_match_staging.sql: not in SQLMesh's layout: run `make format`"])
    code, said = _lint(tmp_path, "--write")
    assert (code, said) == (1, [f"models/marts/core/user_dim.sql: {NO_OWNER}"])
    assert audit.read_text() == laid_out
    assert (tmp_path / "macros/incremental.py").read_text() == macros


def _lint(root: Path, *arguments: str) -> tuple[int, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-m", "transform.lint", *arguments], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    return ran.returncode, ran.stderr.splitlines()
