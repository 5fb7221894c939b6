"""The published copy: readable while the next run writes, and new on a connection that stays open."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from serving.publish import publish
from serving.query import query
from warehouse import storage
from warehouse.errors import StepFailed, UsageError

MARTS = """
CREATE SCHEMA IF NOT EXISTS marts;
CREATE OR REPLACE TABLE marts.daily_revenue AS
SELECT DATE '1997-01-01' + i::INT AS date, 'USD' AS currency, (i * 1.5)::DECIMAL(18, 2) AS revenue FROM range(100) t(i);
COMMENT ON COLUMN marts.daily_revenue.revenue IS 'Sum of the day''s revenue.';
CREATE OR REPLACE TABLE marts.user_dim AS SELECT i AS user_id FROM range(10) t(i);
"""


@pytest.fixture
def marts(home: Path) -> Path:
    change(MARTS)
    return home


def change(statements: str) -> None:
    with storage.open_warehouse() as connection:
        connection.execute(statements)


def read_copy(home: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(home / "published" / "warehouse.duckdb"), read_only=True)


def test_marts_and_their_comments_are_readable(marts: Path) -> None:
    published = publish()
    assert published.tables == {"daily_revenue": 100, "user_dim": 10}
    with read_copy(marts) as reader:
        assert reader.execute("SELECT sum(revenue), count(*) FROM marts.daily_revenue").fetchone()[1] == 100
        comments = reader.execute("SELECT comment FROM duckdb_columns() WHERE table_name = 'daily_revenue' AND column_name = 'revenue'").fetchall()
        assert comments == [("Sum of the day's revenue.",)]
        assert reader.execute("SELECT count(*) FROM duckdb_views() WHERE schema_name NOT IN ('marts') AND NOT internal").fetchone() == (0,)


def test_an_open_connection_sees_the_new_data(marts: Path) -> None:
    publish()
    with read_copy(marts) as reader:
        before = reader.execute("SELECT sum(revenue) FROM marts.daily_revenue").fetchone()
        for _ in range(3):  # flips within the same second must be seen too
            change("UPDATE marts.daily_revenue SET revenue = revenue + 1")
            publish()
            after = reader.execute("SELECT sum(revenue) FROM marts.daily_revenue").fetchone()
            assert after[0] == before[0] + 100
            before = after


def test_readers_in_another_process_work_while_the_writer_holds_the_file(marts: Path) -> None:
    publish()
    program = (
        f"import duckdb; c = duckdb.connect({str(marts / 'published' / 'warehouse.duckdb')!r}, read_only=True); "
        "assert c.execute('SELECT count(*) FROM marts.user_dim').fetchone() == (10,)"
    )
    with storage.open_warehouse() as writer:
        writer.execute("DELETE FROM marts.user_dim")
        subprocess.run([sys.executable, "-c", program], check=True, cwd="/")


def test_only_what_changed_is_written(marts: Path) -> None:
    assert publish().rewritten == ["daily_revenue", "user_dim"]
    assert publish().rewritten == []
    change("INSERT INTO marts.user_dim VALUES (11)")
    assert publish().rewritten == ["user_dim"]
    versions = [path for path in (marts / "published").iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(versions) == 2


def test_old_versions_are_removed_but_not_those_a_reader_may_be_opening(marts: Path) -> None:
    for number in range(6):
        change(f"INSERT INTO marts.user_dim VALUES ({100 + number})")
        publish()
    versions = [path for path in (marts / "published").iterdir() if path.is_dir() and not path.is_symlink()]
    assert len(versions) == 3
    assert (marts / "published" / "current").resolve() in [version.resolve() for version in versions]


def test_new_columns_and_meanings_appear_when_opened_again(marts: Path) -> None:
    publish()
    change("ALTER TABLE marts.user_dim ADD COLUMN country VARCHAR; COMMENT ON COLUMN marts.user_dim.country IS 'Where.'")
    publish()
    with read_copy(marts) as reader:
        assert reader.execute("SELECT country FROM marts.user_dim LIMIT 1").fetchone() == (None,)
    change("COMMENT ON COLUMN marts.user_dim.country IS 'Where they live.'")
    assert publish().rewritten == []
    with read_copy(marts) as reader:
        assert reader.execute("SELECT comment FROM duckdb_columns() WHERE column_name = 'country'").fetchall() == [("Where they live.",)]


def test_without_marts_nothing_is_published(home: Path) -> None:
    change("CREATE TABLE other AS SELECT 1 AS one")
    with pytest.raises(StepFailed, match="no marts"):
        publish()
    assert not (home / "published" / "warehouse.duckdb").exists()


def test_a_question_is_answered_from_the_marts_alone(marts: Path) -> None:
    publish()
    assert query("SELECT count(*) AS users FROM marts.user_dim", limit=5) == (["users"], [(10,)])
    assert len(query("SELECT * FROM marts.daily_revenue", limit=7)[1]) == 7


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "SET enable_external_access = true",
        "CREATE TABLE marts.mine (a INT)",
        "ATTACH 'other.duckdb'",
        "SELECT 1; SELECT 2",
        "INSTALL httpfs",
        "SELECT nonsense FROM marts.user_dim",
    ],
)
def test_a_question_reaches_nothing_else(marts: Path, sql: str) -> None:
    publish()
    with pytest.raises(UsageError):
        query(sql, limit=5)


def test_asking_before_publishing_says_what_to_do(home: Path) -> None:
    with pytest.raises(StepFailed, match="nothing is published"):
        query("SELECT 1", limit=1)
