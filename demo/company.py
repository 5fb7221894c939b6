"""The company's database: who may enter, what it holds, and how it is filled."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from io import StringIO

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection, cursor

from demo.customers import CURRENCY, first_order_dates, profile, purchases
from demo.server import Server
from warehouse.errors import StepFailed

DATABASE = "shop"
OWNER = "company"
READER = "warehouse_reader"

TABLES = """
create schema shop;
create table shop.users (
    id bigint not null,
    email text not null,
    phone text not null,
    ssn text not null,
    age integer not null,
    country text not null,
    segment text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create sequence shop.order_ids;
create table shop.orders (
    id bigint not null default nextval('shop.order_ids'),
    user_id bigint not null,
    ordered_at timestamptz not null,
    quantity integer not null,
    revenue numeric(12, 2) not null,
    currency text not null,
    status text not null,
    updated_at timestamptz not null
);
alter sequence shop.order_ids owned by shop.orders.id;
"""

# After the rows are in, each of these is one pass over a table instead of one step a row.
CONSTRAINTS = """
alter table shop.users add primary key (id), add unique (email);
alter table shop.orders add primary key (id), add foreign key (user_id) references shop.users (id);
create index on shop.users (updated_at);
create index on shop.orders (updated_at);
create index on shop.orders (user_id);
select setval('shop.order_ids', (select max(id) from shop.orders));
analyze shop.users;
analyze shop.orders;
"""

READING = """
grant usage on schema shop to warehouse_reader;
grant select on shop.users, shop.orders to warehouse_reader;
alter default privileges in schema shop grant select on tables to warehouse_reader;
"""


def admit(server: Server) -> None:
    """Make the database and its two users, or set right what is there: the owner `company` and the reader `warehouse_reader`.

    The reader may connect and, once the company is filled, select; its sessions are read-only from the start.
    """
    with _administration(server) as cur:
        for user in (OWNER, READER):
            cur.execute("select 1 from pg_roles where rolname = %s", (user,))
            known = cur.fetchone() is not None
            statement = sql.SQL("alter role {} login password {}" if known else "create role {} login password {}")
            cur.execute(statement.format(sql.Identifier(user), sql.Literal(server.password(user))))
        cur.execute("alter role warehouse_reader set default_transaction_read_only = on")
        cur.execute("select 1 from pg_database where datname = %s", (DATABASE,))
        if cur.fetchone() is None:
            cur.execute("create database shop owner company")
        cur.execute("revoke all on database shop from public")
        cur.execute("revoke connect on database postgres from public")
        cur.execute("grant connect on database shop to warehouse_reader")


def fill(url: str) -> bool:
    """Fill the company as its owner: `shop.users` (23,570 rows) and `shop.orders` (69,659 rows), in one transaction.

    True if it was filled now, False if it had been before.

    Raises:
        StepFailed: the server cannot be reached or refuses; nothing of the company is visible then.
    """
    with session(url) as cur:
        if _is_filled(cur):
            return False
        cur.execute(TABLES)
        _copy(cur, "shop.users (id, email, phone, ssn, age, country, segment, created_at, updated_at)", _users())
        _copy(cur, "shop.orders (id, user_id, ordered_at, quantity, revenue, currency, status, updated_at)", _orders())
        cur.execute(CONSTRAINTS)
        cur.execute(READING)
    return True


def is_filled(url: str) -> bool:
    """Whether the company has its tables, as the user of the connection string sees it.

    Raises:
        StepFailed: the server cannot be reached, or refuses the user.
    """
    with session(url) as cur:
        return _is_filled(cur)


@contextmanager
def session(url: str) -> Iterator[cursor]:
    """One transaction: committed at the end, rolled back by an error.

    Raises:
        StepFailed: the server cannot be reached, or refuses.
    """
    with _refusals(), closing(_connect(url)) as opened, opened, opened.cursor() as cur:
        yield cur


@contextmanager
def _administration(server: Server) -> Iterator[cursor]:
    """The superuser's statements, each on its own: a database is not made inside a transaction."""
    with _refusals(), closing(_connect(server.url())) as opened:
        opened.autocommit = True
        with opened.cursor() as cur:
            yield cur


def _connect(url: str) -> connection:
    return psycopg2.connect(url, connect_timeout=10, application_name="demo")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        said = str(error).partition("\n")[0]  # further lines may hold values of the row
        raise StepFailed(f"the demo company's PostgreSQL refused: {said}", mend="see whether it runs: python -m demo start") from error


def _is_filled(cur: cursor) -> bool:
    cur.execute("select exists (select from pg_tables where schemaname = 'shop' and tablename = 'orders')")
    return cur.fetchone() == (True,)


def _users() -> Iterator[tuple[object, ...]]:
    for user_id, first in first_order_dates().items():
        drawn = profile(user_id, first)
        yield (*drawn[:-1], _instant(drawn.created_at), _instant(drawn.created_at))


def _orders() -> Iterator[tuple[object, ...]]:
    for bought in purchases():
        midnight = f"{bought.ordered_on}T00:00:00Z"
        yield (bought.order_id, bought.user_id, midnight, bought.quantity, bought.revenue, CURRENCY, "completed", midnight)


def _instant(moment: datetime) -> str:
    return moment.isoformat()


def _copy(cur: cursor, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Send rows as text; no value of ours holds a tab, a backslash or a line end, which would need quoting."""
    text = StringIO()
    for row in rows:
        text.write("\t".join(map(str, row)) + "\n")
    text.seek(0)
    cur.copy_expert(f"copy {table} from stdin", text)
