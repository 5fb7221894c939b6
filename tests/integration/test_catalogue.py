"""The catalogue says of every table and column what models, contracts and the privacy policy say, and the dictionary is up to date."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import catalogue
from cli.main import cli
from transform.catalogue import html, markdown
from transform.catalogue.tables import Column, Contract, Personal, Table
from warehouse.settings import ROOT

VOID = {"meta", "input", "link", "wbr", "img"}
HOSTILE = """</td></script><script>alert(1)</script><img src=x onerror='a'>"&amp; | ` [x](javascript:1) \\| *"""
HEADER = "owner data, grain {grain}, description 'Things.', column_descriptions ({columns})"


class Page(HTMLParser):
    """What a browser would make of a page; it fails where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice: {attrs}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()[0]}: </{tag}>"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def inside(self, tag: str) -> list[str]:
        return [text for at, text in self.texts if at == tag]


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    return catalogue.read()


@pytest.fixture(scope="module")
def page(tables: list[Table]) -> Page:
    return Page(catalogue.rendered(tables, "html", ROOT / "docs" / "catalogue.html"))


def test_the_dictionary_is_up_to_date(tables: list[Table]) -> None:
    said = "docs/dictionary.md is not what the models say: write it anew with `make dictionary`"
    assert catalogue.DICTIONARY.read_text() == catalogue.rendered(tables, "markdown", catalogue.DICTIONARY), said


def test_every_model_and_contract_of_the_project_is_in_the_catalogue(tables: list[Table]) -> None:
    held = {table.path: table for table in tables}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "models").rglob("*.sql")} <= set(held)
    assert [table.layer for table in tables] == sorted((table.layer for table in tables), key=["marts", "staging", "raw"].index)
    contracts = {table.contract.path for table in tables if table.contract}
    assert {f"soda/{table.name.replace('.', '/')}.yml" for table in tables if (ROOT / "soda" / f"{table.name.replace('.', '/')}.yml").exists()} == contracts
    assert not [f"{table.name}.{column.name}" for table in tables if table.layer != "raw" for column in table.columns if not column.meaning]


def test_every_column_stands_in_the_page_and_every_link_leads_somewhere(tables: list[Table], page: Page) -> None:
    ids = page.attributes("id")
    assert len(set(ids)) == len(ids)
    assert {f"{table.name}.{column.name}" for table in tables for column in table.columns} <= set(ids)
    for target in page.attributes("href"):
        assert target.removeprefix("#") in ids if target.startswith("#") else (ROOT / "docs" / target).exists(), target
    for reference in [*page.attributes("for"), *page.attributes("aria-labelledby")]:
        assert reference in ids


def test_the_page_asks_nothing_of_others(page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "base", "form"}
    assert page.attributes("src") == []
    (style,), (script,) = page.inside("style"), page.inside("script")
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?:|fetch|import|eval|innerHTML", script)
    (policy,) = (attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    assert policy == "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'".format(*digests)


def test_the_page_can_be_heard_and_walked_through(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("main"), tags.count("nav"), tags.count("header")) == (1, 1, 1)
    assert tags.count("caption") == tags.count("table") == tags.count("section")
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.elements if tag == "th")
    assert [attributes["lang"] for tag, attributes in page.elements if tag == "html"] == ["en"]
    assert page.attributes("href")[0] == "#content"


def test_text_stands_out_in_light_and_in_dark() -> None:
    blocks = re.findall(r":root \{(.*?)\}", (Path(html.__file__).parent / "catalogue.css").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
        for text, ground in [(text, ground) for text in ("text", "soft", "link") for ground in ("ground", "raised")] + [("warm", "warm-ground")]:
            light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {ground}"


def _luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _table(name: str = "marts.visits", *, text: str = "Visits.", columns: Sequence[Column] = (), pages: Sequence[str] = ()) -> Table:
    contract = Contract(f"soda/{text}.yml", (text,), {})
    column = Column(f"is_{text}", text, text, (Personal(text, text),), (text,), (), ())
    layer = name.split(".")[0]
    return Table(name, layer, text, text, text, (text,), text, text, (), (text,), contract, tuple(pages), tuple(columns) or (column,))


def test_no_text_becomes_markup() -> None:
    written = html.document([_table(text=HOSTILE)], {})
    page = Page(written)
    assert len(page.inside("script")) == 1
    assert not page.attributes("onerror")
    assert "".join(page.inside("td")).count(HOSTILE) == 1
    assert HOSTILE in page.inside("p")
    (row,) = (line for line in markdown.document([_table(text=HOSTILE)], {}).splitlines() if line.startswith("| is_"))
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 7
    assert not re.search(r"(?<!\\)<", row)


def test_pages_of_metrics_are_linked_from_within_the_project_and_named_outside(tmp_path: Path) -> None:
    tables = [_table(pages=["docs/metrics/traffic.md"])]
    assert "[docs/metrics/traffic.md](metrics/traffic.md)" in catalogue.rendered(tables, "markdown", None)
    assert '<a href="docs/metrics/traffic.md">' in catalogue.rendered(tables, "html", ROOT / "catalogue.html")
    elsewhere = catalogue.rendered(tables, "html", tmp_path / "catalogue.html")
    assert "docs/metrics/traffic.md" in elsewhere
    assert str(ROOT) not in elsewhere
    assert not [target for target in Page(elsewhere).attributes("href") if not target.startswith("#")]


def test_a_dictionary_too_long_to_read_names_the_columns_of_the_marts_alone() -> None:
    tables = [_table(), replace(_table("staging.stg_web__visits"), columns=(Column("page", "TEXT", "Path seen.", (), (), (), ()),))]
    whole = markdown.document(tables, {})
    lines = whole.count("\n")
    assert markdown.document(tables, {}, longest=lines) == whole
    short = markdown.document(tables, {}, longest=lines - 1)
    assert "Path seen." in whole
    assert "Path seen." not in short
    assert "| staging.stg_web__visits | Visits. | 1 |" in short
    assert "`is_Visits.`" in short


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(catalogue, "read", lambda: [_table()])
    assert CliRunner().invoke(cli, ["catalogue", "--out", str(tmp_path / "new" / "d.md")]).exit_code == 0
    assert (tmp_path / "new" / "d.md").read_text() == markdown.document([_table()], {})
    said = CliRunner().invoke(cli, ["catalogue", "--out", str(tmp_path / "file" / "d.md")])
    assert "cannot be written" in str(said.exception)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The catalogue, by table, of another project: with a seed, a model in Python, and a warehouse's settings that lead nowhere."""
    root = tmp_path_factory.mktemp("project")
    for part in ("cli", "linter", "macros", "monitoring", "privacy", "transform", "warehouse"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "config.yaml", root)
    declared = {
        "external_models/web.yaml": """
            - name: raw_web.people
              description: People.
              columns: {id: BIGINT, mail_hash: TEXT, is_mail_valid: BOOLEAN, fon_masked: TEXT, nick: TEXT, city: TEXT}
            """,
        "privacy/policy.yaml": """
            columns:
              web.people:
                mail: {class: email, action: hmac}
                fon: {class: phone, action: mask}
                nick: {class: name, action: keep, why: public}
                city: {class: none, action: keep}
                gone: {class: ssn, action: drop}
            """,
        "models/staging/web/stg_web__people.sql": f"""
            MODEL (name staging.stg_web__people, kind VIEW, {HEADER.format(grain="person_id", columns="mail_hash = 'Hash.'")});
            WITH people AS (SELECT * FROM raw_web.people)
            SELECT id::BIGINT AS person_id, mail_hash::TEXT AS mail_hash, LOWER(nick)::TEXT AS called, fon_masked::TEXT AS fon, city::TEXT AS city FROM people
            """,
        "models/marts/web/towns.sql": f"""
            MODEL (name marts.towns, kind FULL, {HEADER.format(grain="(country, city)", columns="people = 'How many.'")}, audits (not_null(columns := city)));
            SELECT t.country::TEXT AS country, p.city::TEXT AS city, COUNT(*)::BIGINT AS people, COUNT(DISTINCT p.mail_hash || p.called)::BIGINT AS known
            FROM staging.stg_web__people AS p JOIN marts.countries AS t ON t.city = p.city GROUP BY ALL
            """,
        "models/marts/web/countries.sql": f"""
            MODEL (name marts.countries, kind SEED (path 'countries.csv'), columns (city TEXT, country TEXT),
              {HEADER.format(grain="city", columns="city = 'Town.'")});
            """,
        "models/marts/web/countries.csv": "city,country\nBern,CH\n",
        "models/marts/web/guesses.py": """
            import typing as t
            from sqlmesh import ExecutionContext, model

            @model("marts.guesses", kind="FULL", columns={"mail_hash": "TEXT", "guess": "DOUBLE"}, depends_on={"staging.stg_web__people"}, owner="data")
            def execute(context: ExecutionContext, **kwargs: t.Any) -> t.Any:
                yield from ()
            """,
        "soda/marts/towns.yml": """
            dataset: warehouse/marts/towns
            description: Towns.
            may_be_empty: true
            checks:
              - schema:
              - duplicate: {columns: [country, city]}
              - failed_rows: {name: nobody is lost, qualifier: lost, expression: people < 0, threshold: {level: warn, must_be: 0}}
            columns:
              - {name: country, data_type: VARCHAR, checks: [{missing: }, {invalid: {valid_format: {name: two letters, regex: "^[A-Z]{2}$"}}}]}
              - {name: city, data_type: VARCHAR, checks: [{missing: {threshold: {metric: percent, must_be_less_than: 5}}}]}
              - {name: people, data_type: BIGINT, checks: [{invalid: {valid_min: 0}}]}
              - {name: known, data_type: BIGINT, checks: [{invalid: {valid_min: 0, valid_max: 9}}]}
            """,
        "docs/metrics/towns.md": "Counted in `marts.towns`, not in marts.countries_old.\n",
    }
    for name, text in declared.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(r"^ {12}", "", text, flags=re.MULTILINE).lstrip("\n"))
    environment = {**os.environ, "PYTHONPATH": str(root), "WAREHOUSE_STORAGE": "motherduck", "WAREHOUSE_HOME": str(root / "nowhere")}
    program = [sys.executable, "-c", "from cli.main import main; main()", "catalogue", "--format", "json", "--out", str(root / "catalogue.json")]
    ran = subprocess.run(program, cwd=root, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not (root / "nowhere").exists()
    return {
        table["name"]: table | {"columns": {column["name"]: column for column in table["columns"]}}
        for table in json.loads((root / "catalogue.json").read_text())
    }


def test_columns_know_what_they_come_from_and_what_comes_from_them(other: dict[str, Any]) -> None:
    assert list(other) == ["marts.countries", "marts.guesses", "marts.towns", "staging.stg_web__people", "raw_web.people"]
    towns, people = other["marts.towns"]["columns"], other["staging.stg_web__people"]["columns"]
    assert {name: column["upstream"] for name, column in towns.items()} == {
        "country": ["marts.countries.country"],
        "city": ["staging.stg_web__people.city"],
        "people": [],
        "known": ["staging.stg_web__people.called", "staging.stg_web__people.mail_hash"],
    }
    assert people["called"]["upstream"] == ["raw_web.people.nick"]
    assert people["mail_hash"]["downstream"] == ["marts.guesses.mail_hash", "marts.towns.known"]
    assert other["marts.guesses"]["columns"]["mail_hash"]["upstream"] == ["staging.stg_web__people.mail_hash"]
    assert other["marts.guesses"]["columns"]["guess"]["upstream"] == []


def test_personal_data_is_followed_to_the_last_mart(other: dict[str, Any]) -> None:
    email, phone, name = ({"personal_class": kind, "action": action} for kind, action in (("email", "hmac"), ("phone", "mask"), ("name", "keep")))
    personal = {f"{table}.{column}": value["personal"] for table, held in other.items() for column, value in held["columns"].items() if value["personal"]}
    assert personal == {
        "raw_web.people.mail_hash": [email],
        "raw_web.people.is_mail_valid": [email],
        "raw_web.people.fon_masked": [phone],
        "raw_web.people.nick": [name],
        "staging.stg_web__people.mail_hash": [email],
        "staging.stg_web__people.called": [name],
        "staging.stg_web__people.fon": [phone],
        "marts.towns.known": [email, name],
        "marts.guesses.mail_hash": [email],
    }


def test_a_table_says_how_it_is_built_by_whom_and_what_is_promised(other: dict[str, Any]) -> None:
    towns = other["marts.towns"]
    assert (towns["group"], towns["kind"], towns["owner"], towns["grain"], towns["audits"]) == ("web", "full", "data", ["country", "city"], ["not_null"])
    assert (towns["path"], towns["reads"]) == ("models/marts/web/towns.sql", ["marts.countries", "staging.stg_web__people"])
    assert towns["columns"]["people"]["type"] == "BIGINT"
    assert towns["columns"]["people"]["meaning"] == "How many."
    assert towns["contract"]["path"] == "soda/marts/towns.yml"
    assert towns["contract"]["table_checks"] == ["may be empty", "country, city together unique", "nobody is lost (count must be 0, warns)"]
    assert {name: column["checks"] for name, column in towns["columns"].items()} == {
        "country": ["never null", "two letters"],
        "city": ["never null (percent must be less than 5 %)"],
        "people": ["at least 0"],
        "known": ["at least 0, at most 9"],
    }
    assert {name: table["pages"] for name, table in other.items() if table["pages"]} == {"marts.towns": ["docs/metrics/towns.md"]}
    assert (other["marts.countries"]["kind"], other["raw_web.people"]["kind"], other["raw_web.people"]["group"]) == ("seed", "loaded", "web")
    assert other["marts.countries"]["contract"] is None
