"""Whose rows are: found by what is declared, in tables of every kind, and told apart from rows that only mention somebody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from privacy import erasures, subjects
from privacy.subjects import Subject, bind_tags, resolve, tag

AT = "2026-01-10T00:00:00+00:00"
ZOE, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def connection(home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """User 1 is Zendesk's 7 by email and Stripe's cus_d by declaration; 8 is somebody else."""
    with duckdb.connect() as made:
        made.execute(
            f"""
            CREATE SCHEMA raw_postgres; CREATE SCHEMA raw_stripe; CREATE SCHEMA raw_zendesk; SET TimeZone = 'UTC';
            CREATE TABLE raw_postgres.users AS SELECT * FROM (VALUES (1, '{ZOE}'), (2, '{OTHER}')) t(id, email_hash);
            CREATE TABLE raw_stripe.customers AS SELECT * FROM (VALUES
              ('cus_d', '{{"metadata":{{"user_id":"1"}}}}', NULL, TIMESTAMPTZ '2026-01-01'),
              ('cus_x', '{{"metadata":{{"user_id":"1"}}}}', '{OTHER}', '2026-01-01'))
              t(id, _object, email_hash, created_at);
            CREATE TABLE raw_stripe.events AS SELECT * FROM (VALUES
              ('evt_1', 'in_1', '{{"data":{{"object":{{"id":"in_1","customer":"cus_d","metadata":{{"n":"Zoe"}},"price":5}}}}}}'),
              ('evt_2', 'cus_d', '{{}}'), ('evt_3', 'in_3', '{{"data":{{"object":{{"customer":"cus_x"}}}}}}')) t(id, object_id, _object);
            CREATE TABLE raw_zendesk.users AS SELECT * FROM (VALUES (7, '{ZOE}', NULL), (8, '{OTHER}', NULL)) t(id, email_hash, external_id);
            CREATE TABLE raw_zendesk.tickets AS SELECT * FROM (VALUES
              (100, 7, 9, '[7,8]', 'hers'), (101, 8, 7, '[77,7]', 'of another'), (102, 8, 9, '[77]', 'untouched'))
              t(id, requester_id, submitter_id, follower_ids, subject);
            CREATE TABLE raw_zendesk.ticket_comments AS SELECT * FROM (VALUES (1, 100, 9, 'on hers'), (2, 101, 7, 'by her'), (3, 101, 8, 'stays'))
              t(id, ticket_id, author_id, body);
            """
        )
        yield made


def erase(connection: duckdb.DuckDBPyConnection, *named: Subject) -> dict[str, int]:
    keys = resolve(connection, named)
    bind_tags(connection, [(tag(one.kind, one.value), AT) for one in keys])
    return erasures.erase_raw(connection)


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_one_key_leads_to_every_key_of_the_person_and_to_nobody_else(connection: duckdb.DuckDBPyConnection) -> None:
    every = [Subject("email", ZOE), Subject("postgres", "1"), Subject("stripe", "cus_d"), Subject("zendesk", "7")]
    for named in every:
        assert resolve(connection, [named]) == every
    assert resolve(connection, [Subject("stripe", "cus_x")]) == [Subject("stripe", "cus_x")], "declared and email contradict each other"


def test_rows_go_with_what_they_hang_on_and_mentions_are_taken_out(connection: duckdb.DuckDBPyConnection) -> None:
    erase(connection, Subject("zendesk", "7"))
    assert rows(connection, "SELECT id FROM raw_zendesk.users") == [(8,)]
    tickets = rows(connection, "SELECT id, requester_id, submitter_id < 0, follower_ids, subject FROM raw_zendesk.tickets ORDER BY id")
    assert tickets == [(101, 8, True, "[77]", "of another"), (102, 8, False, "[77]", "untouched")]
    assert rows(connection, "SELECT id FROM raw_zendesk.ticket_comments") == [(3,)]
    (first, second, third) = rows(connection, "SELECT object_id, _object FROM raw_stripe.events ORDER BY id")
    word = subjects.surrogate("stripe", "cus_d", "word")
    assert first == ("in_1", f'{{"data":{{"object":{{"id":"in_1","customer":"{word}","metadata":null,"price":5}}}}}}')
    assert second[0] == word
    assert "cus_x" in third[1]


def test_who_is_met_by_the_email_later_is_found_by_the_key_from_then_on(connection: duckdb.DuckDBPyConnection) -> None:
    erase(connection, Subject("email", ZOE))
    connection.execute(f"INSERT INTO raw_zendesk.users VALUES (70, '{ZOE}', NULL)")
    connection.execute("INSERT INTO raw_zendesk.ticket_comments VALUES (4, 102, 70, 'by her too')")
    connection.execute(f"INSERT INTO raw_stripe.customers VALUES ('cus_new', '{{}}', '{ZOE}', '2026-02-01')")
    assert erasures.erase_raw(connection) == {"raw_zendesk.users": 1, "raw_zendesk.ticket_comments": 1}, "who comes back anew is a customer again"


def test_erasing_again_changes_nothing(connection: duckdb.DuckDBPyConnection) -> None:
    assert erase(connection, Subject("postgres", "1"))
    assert erasures.erase_raw(connection) == {}
