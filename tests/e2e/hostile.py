"""A source that is hard to load, its random life, and how raw tables differ from what it answers itself.

Ties and nulls at the cursor, transactions that stamp rows and stay open, keys that change, vanish and come back, a
composite key, a personal key, a table without cursor, one without key, partitions, values that are stored apart (TOAST).
"""

import hashlib
import hmac
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
from conftest import KEY, Company

Row = tuple[Any, ...]

DECLARATION = """
lag: 1s
deletes: hourly
max_deleted_share: 1
tables:
  shop.*:
"""
POLICY = """
columns:
  postgres.members:
    email: {class: email, action: hmac}
  postgres.subscribers:
    email: {class: email, action: hmac}
"""
SCHEMA = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE shop.events (id bigint PRIMARY KEY, updated_at timestamptz, amount numeric(12,2), exact numeric, mood shop.mood, tags text[], payload jsonb,
  body bytea);
CREATE TABLE shop.lines (order_id int, line int, updated_at timestamp NOT NULL, quantity smallint, price double precision, PRIMARY KEY (order_id, line));
CREATE TABLE shop.prices (sku text PRIMARY KEY, price numeric, is_active boolean, since date);
CREATE TABLE shop.notes (said text, times int);
CREATE TABLE shop.visits (id bigint, region text, updated_at timestamptz NOT NULL, session uuid, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE shop.visits_us PARTITION OF shop.visits FOR VALUES IN ('us');
CREATE TABLE shop.visits_rest PARTITION OF shop.visits DEFAULT;
CREATE TABLE shop.members (id int PRIMARY KEY, email text, plan text, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.subscribers (email text PRIMARY KEY, topic text);
"""
# The tables' lowest keys belong to transactions that stay open, so that the other statements need not wait for their locks.
LATE = 40
INSERTS = """
INSERT INTO shop.events SELECT i, now(), i * {n} % 100000 / 100.0, i / 8.0, (array['sad', 'ok', 'happy'])[1 + i % 3]::shop.mood,
  array['t' || i % 5, NULL, '"'], jsonb_build_object('n', i, 'seed', {n}),
  CASE WHEN i % 50 = 0 THEN (SELECT string_agg(sha256((i * j)::text::bytea), '') FROM generate_series(1, 1500) j) ELSE sha256(i::text::bytea) END
  FROM generate_series({low}, {high}) i ON CONFLICT DO NOTHING;
INSERT INTO shop.lines SELECT i / 3, i % 3, now(), i % 100, i / 3.0 FROM generate_series({low}, {high}) i ON CONFLICT DO NOTHING;
INSERT INTO shop.prices SELECT 'sku ' || i, i * {n} % 1000 / 8.0, i % 2 = 0, date '2024-01-01' + i % 900 FROM generate_series({low}, {high}) i
  ON CONFLICT DO NOTHING;
INSERT INTO shop.visits SELECT i, (array['us', 'de', 'fr'])[1 + i % 3], now(), md5(i::text)::uuid FROM generate_series({low}, {high}) i ON CONFLICT DO NOTHING;
INSERT INTO shop.members SELECT i, CASE WHEN i % 9 > 0 THEN ' Member' || i || '@Example.com' END, 'free', now() FROM generate_series({low}, {high}) i
  ON CONFLICT DO NOTHING;
INSERT INTO shop.subscribers SELECT 'reader' || i || '@example.com', 'topic ' || {n} FROM generate_series({low}, {high}) i ON CONFLICT DO NOTHING;
"""
UPDATES = (
    "UPDATE shop.events SET amount = {n} / 100.0, updated_at = now() WHERE id > {late} AND id % {every} = {turn}",  # all stamped alike
    "UPDATE shop.events SET amount = {n} / 100.0, updated_at = NULL WHERE id > {late} AND id % 211 = {turn}",
    "UPDATE shop.events SET body = body || sha256('{n}'), updated_at = clock_timestamp() WHERE id > {late} AND id % 50 = 0 AND id % 7 = {n} % 7",
    "UPDATE shop.events SET tags = array['{n}'], exact = {n} / 16.0, updated_at = now() WHERE id > {late} AND updated_at IS NULL",
    "UPDATE shop.lines SET quantity = {n} % 100, updated_at = now() WHERE order_id > {late} / 3 AND order_id % {every} = {turn}",
    "UPDATE shop.prices SET price = {n} / 8.0 WHERE sku LIKE 'sku %{turn}' AND length(sku) > 6",
    "UPDATE shop.notes SET said = 'said {n}' WHERE times % 7 = {n} % 7",
    "UPDATE shop.visits SET session = md5('{n}')::uuid, updated_at = now() WHERE id > {late} AND id % {every} = {turn}",
    "UPDATE shop.members SET plan = 'plan {n}', updated_at = now() WHERE id > {late} AND id % {every} = {turn}",
    "UPDATE shop.members SET email = 'moved{n}@example.com', updated_at = now() WHERE id > {late} AND id % 97 = {turn}",
    "UPDATE shop.subscribers SET topic = 'topic {n}' WHERE right(split_part(email, '@', 1), 1) = '{digit}' AND length(email) > 20",
)
KEY_CHANGES = (
    "UPDATE shop.events SET id = {n}, updated_at = now() WHERE id = {one} AND NOT EXISTS (SELECT 1 FROM shop.events WHERE id = {n})",
    "UPDATE shop.lines SET line = line + 3, updated_at = now() WHERE order_id = {one} / 3 AND line < 3"
    " AND NOT EXISTS (SELECT 1 FROM shop.lines WHERE order_id = {one} / 3 AND line > 2)",
    "UPDATE shop.prices SET sku = 'sku {n}' WHERE sku = 'sku {one}' AND NOT EXISTS (SELECT 1 FROM shop.prices WHERE sku = 'sku {n}')",
    "UPDATE shop.visits v SET region = 'us', updated_at = now() WHERE id % 61 = {turn} AND id > {late} AND region <> 'us'"
    " AND NOT EXISTS (SELECT 1 FROM shop.visits o WHERE o.id = v.id AND o.region = 'us')",
    "UPDATE shop.subscribers SET email = 'renamed{n}@example.com' WHERE email = 'reader{one}@example.com'"
    " AND NOT EXISTS (SELECT 1 FROM shop.subscribers WHERE email = 'renamed{n}@example.com')",
)
DELETES = (
    "DELETE FROM shop.events WHERE id BETWEEN {one} AND {one} + 30",
    "DELETE FROM shop.lines WHERE order_id BETWEEN {one} / 3 AND {one} / 3 + 9",
    "DELETE FROM shop.prices WHERE sku LIKE 'sku {one}%'",
    "DELETE FROM shop.visits WHERE id BETWEEN {one} AND {one} + 30",
    "DELETE FROM shop.members WHERE id BETWEEN {one} AND {one} + 30",
    "DELETE FROM shop.subscribers WHERE email LIKE 'reader{one}%'",
    "DELETE FROM shop.notes WHERE times % 5 = {n} % 5",
)
NOTES = ("INSERT INTO shop.notes SELECT 'note ' || i % 4, i % 6 FROM generate_series(1, {every}) i",) * 3 + ("DELETE FROM shop.notes",)
STAYS_OPEN = (
    "UPDATE shop.events SET amount = {n} / 100.0, updated_at = now() WHERE id <= {late} AND id % 2 = {n} % 2",
    "INSERT INTO shop.events (id, updated_at, amount) VALUES (-{n}, now(), 1), (-{n} - 1, NULL, 2) ON CONFLICT DO NOTHING",
    "DELETE FROM shop.events WHERE id <= {late} AND id % 20 = {n} % 20",
    "UPDATE shop.lines SET quantity = {n} % 100, updated_at = now() WHERE order_id <= {late} / 3 AND order_id % 2 = {n} % 2",
    "INSERT INTO shop.prices (sku, price) VALUES ('late {n}', {n}) ON CONFLICT DO NOTHING",
    "UPDATE shop.visits SET session = md5('{n}')::uuid, updated_at = now() WHERE id <= {late}",
    "DELETE FROM shop.members WHERE id <= {late} AND id % 20 = {n} % 20",
)
KEYS = 900
"""Most rows of a table."""


class Hostile:
    """The source, its clock, and the transaction that it keeps open.

    Attributes:
        clock: an hour later whenever something changed.
    """

    def __init__(self, company: Company) -> None:
        self.clock = datetime.now(UTC) + timedelta(days=1)
        self._company = company
        self._connection = psycopg2.connect(company.owner_url)
        self._connection.autocommit = True
        self._open: Any = None
        self._rows: dict[str, Counter[Row]] = {}

    def fill(self) -> None:
        """Make the tables and their first rows."""
        self._execute(SCHEMA + INSERTS.format(low=1, high=KEYS * 2 // 3, n=1) + NOTES[0].format(every=50))

    def live(self, chance: random.Random) -> None:
        """Some random statements, each a transaction; then perhaps end the transaction that stayed open, and perhaps leave another one open."""
        for _ in range(chance.randint(3, 9)):
            kind = chance.choice((UPDATES, UPDATES, UPDATES, KEY_CHANGES, DELETES, NOTES, (INSERTS,)))
            self._execute(_filled(chance.choice(kind), chance))
        if self._open is not None and chance.random() < 0.5:
            (self._open.rollback if chance.random() < 0.3 else self._open.commit)()
            self._open.close()
            self._open = None
        if self._open is None and chance.random() < 0.6:
            self._open = psycopg2.connect(self._company.owner_url)
            with self._open.cursor() as cursor:
                for statement in chance.sample(STAYS_OPEN, 4):
                    cursor.execute(_filled(statement, chance))

    def rows(self) -> dict[str, "Counter[Row]"]:
        """What it answers itself, each row as it must be found in the warehouse."""
        if not self._rows:
            self._rows = {name: Counter(table.pseudonymised(row) for row in self._ask(table.in_postgres)) for name, table in TABLES.items()}
        return self._rows

    def now(self) -> float:
        """What time its server has, in seconds."""
        return float(self._ask("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    def close(self) -> None:
        """End its connections; what was not committed is gone."""
        for connection in (self._open, self._connection):
            if connection is not None:
                connection.close()

    def _execute(self, statements: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statements)
        self._rows = {}
        self.clock += timedelta(hours=1)

    def _ask(self, query: str) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[Row] = cursor.fetchall()
            return rows


def _filled(statement: str, chance: random.Random) -> str:
    low = chance.randint(LATE + 1, KEYS)
    return statement.format(
        n=chance.randint(1, KEYS), one=chance.randint(LATE + 3, KEYS), every=chance.choice((2, 5, 40)), turn=chance.randrange(5),
        digit=chance.randrange(10), late=LATE, low=low, high=min(low + chance.choice((5, 300)), KEYS),
    )  # fmt: skip


_WAYS = {
    "as it is": ("{}", "{}"),
    "text": ("{}::text", "{}::VARCHAR"),
    "instant": ("(extract(epoch FROM {}) * 1000000)::bigint", "epoch_us({})"),
    "bytes": ("upper(encode({}, 'hex'))", "hex({})"),
    "array": ("to_json({})::text", "{}"),
    "email": ("lower(trim({}))", "{}_hash"),
}
"""How PostgreSQL and the warehouse are asked for a column, so that both give one value of Python."""


@dataclass(frozen=True)
class Table:
    """One table: its key's columns and the others, each with the way both databases are asked for it."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, str] = field(hash=False)
    email: int | None = None
    """Which of the columns is hashed on the way."""

    @property
    def in_postgres(self) -> str:
        """The question to PostgreSQL."""
        return f"SELECT {', '.join(_WAYS[way][0].format(name) for name, way in self.columns.items())} FROM shop.{self.name}"

    @property
    def in_warehouse(self) -> str:
        """The question to the warehouse; the last column says whether the row is gone."""
        chosen = ", ".join(_WAYS[way][1].format(name) for name, way in self.columns.items())
        return f"SELECT {chosen}, _deleted_at IS NOT NULL FROM raw_postgres.{self.name}"

    def pseudonymised(self, row: Row) -> Row:
        """A row of PostgreSQL as the warehouse must hold it; hashed by other code than the warehouse's."""
        if self.email is None or row[self.email] is None:
            return row
        digest = hmac.new(KEY.encode(), row[self.email].encode(), hashlib.sha256).hexdigest()
        return (*row[: self.email], digest, *row[self.email + 1 :])

    def key_of(self, row: Row) -> Row:
        """The values that tell this row from others."""
        return row[: len(self.key)]


_ALL = (
    Table(
        "events",
        ("id",),
        {
            "id": "as it is",
            "updated_at": "instant",
            "amount": "as it is",
            "exact": "as it is",
            "mood": "text",
            "tags": "array",
            "payload": "text",
            "body": "bytes",
        },
    ),
    Table("lines", ("order_id", "line"), {"order_id": "as it is", "line": "as it is", "updated_at": "instant", "quantity": "as it is", "price": "as it is"}),
    Table("prices", ("sku",), {"sku": "as it is", "price": "as it is", "is_active": "as it is", "since": "as it is"}),
    Table("notes", (), {"said": "as it is", "times": "as it is"}),
    Table("visits", ("id", "region"), {"id": "as it is", "region": "as it is", "updated_at": "instant", "session": "text"}),
    Table("members", ("id",), {"id": "as it is", "email": "email", "plan": "as it is", "updated_at": "instant"}, email=1),
    Table("subscribers", ("email",), {"email": "email", "topic": "as it is"}, email=0),
)
TABLES = {table.name: table for table in _ALL}


@dataclass
class Seen:
    """What one warehouse knows: the keys it held after its last good load, and the rows that this one and later, killed loads could read."""

    keys: dict[str, set[Row]] = field(default_factory=lambda: {name: set() for name in TABLES})
    could_read: dict[str, set[Row]] = field(default_factory=lambda: {name: set() for name in TABLES})

    def reads(self, rows: "dict[str, Counter[Row]]") -> None:
        """A load begins now and could read these."""
        for name, some in rows.items():
            self.could_read[name] |= set(some)

    def differences(self, home: Path, rows: "dict[str, Counter[Row]]", now: float) -> list[str]:
        """How the raw tables differ from the source's rows after a good load; empty when they do not.

        Rows that are gone must be marked and hold values that the source had.
        """
        found = []
        with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
            for name, table in TABLES.items():
                held = connection.execute(table.in_warehouse).fetchall()
                present = Counter(row[:-1] for row in held if not row[-1])
                gone = [row[:-1] for row in held if row[-1]]
                lost, strange = rows[name] - present, present - rows[name]
                if lost or strange:
                    found.append(f"{name}: {lost.total()} lost or stale, {strange.total()} strange: {[table.key_of(row) for row in [*lost, *strange][:5]]}")
                if table.key:
                    keys = {table.key_of(row) for row in held}
                    found += self._wrongly_gone(table, gone, {table.key_of(row) for row in rows[name]})
                    found += [f"{name}: a key stands twice"] if len(keys) < len(held) else []
                    self.keys[name] = keys
                latest = connection.execute(f"SELECT max(epoch(_loaded_at)), max(epoch(_deleted_at)) FROM raw_postgres.{name}").fetchone()
                found += [f"{name}: loaded or deleted in the future"] if latest and any(one and one > now for one in latest) else []
                self.could_read[name] = {*rows[name], *gone}
        return found

    def _wrongly_gone(self, table: Table, gone: list[Row], present: set[Row]) -> list[str]:
        keys = {table.key_of(row) for row in gone}
        before = self.keys[table.name]
        wrong = []
        if keys & present:
            wrong.append(f"{table.name}: {len(keys & present)} rows marked as deleted are in the source: {sorted(keys & present)[:5]}")
        if before - present - keys:
            wrong.append(f"{table.name}: {len(before - present - keys)} deleted rows are not kept: {sorted(before - present - keys)[:5]}")
        never = [table.key_of(row) for row in gone if row not in self.could_read[table.name]]
        if never:
            wrong.append(f"{table.name}: {len(never)} deleted rows have values that the source never had: {never[:5]}")
        return wrong
