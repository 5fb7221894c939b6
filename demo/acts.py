"""What the company does from day to day: new orders, corrections, deletions, customers who change."""

from dataclasses import dataclass

from psycopg2.extensions import cursor

from demo.company import session
from demo.customers import COUNTRIES, CURRENCY, SEGMENTS
from warehouse import clock
from warehouse.errors import UsageError

# An order of the rows that a seed alone decides: md5 is the same on every version of PostgreSQL.
PICK_ORDERS = "select id from shop.orders order by md5(%(seed)s || ':order:' || id), id limit %(many)s"
PICK_USERS = "select id from shop.users order by md5(%(seed)s || ':user:' || id), id limit %(many)s"

PLACE = """
with customers as (
    select id, row_number() over (order by id) - 1 as place, count(*) over () as customer_count
    from shop.users
),
drawn as (
    select
        number,
        ('x' || substr(md5(%(seed)s || ':place:' || number), 1, 8))::bit(32)::bigint as customer_draw,
        ('x' || substr(md5(%(seed)s || ':place:' || number), 9, 8))::bit(32)::bigint as quantity_draw,
        ('x' || substr(md5(%(seed)s || ':place:' || number), 17, 8))::bit(32)::bigint as price_draw
    from generate_series(1, %(many)s) as number
)
insert into shop.orders (user_id, ordered_at, quantity, revenue, currency, status, updated_at)
select
    customers.id,
    %(now)s,
    1 + drawn.quantity_draw %% 5,
    (1 + drawn.quantity_draw %% 5) * (899 + drawn.price_draw %% 2000) / 100.0,
    %(currency)s,
    'completed',
    %(now)s
from drawn
join customers on customers.place = drawn.customer_draw %% customers.customer_count
order by drawn.number
returning id
"""

# Doubling or trebling keeps the unit price to the cent.
EDIT = """
update shop.orders
set quantity = quantity * factor, revenue = revenue * factor, updated_at = %(now)s
from (select id as edited_id, 2 + ascii(md5(%(seed)s || ':factor:' || id)) %% 2 as factor from unnest(%(ids)s::bigint[]) as id) as edits
where orders.id = edits.edited_id
"""

DELETE = "delete from shop.orders where id = any(%(ids)s)"

# Each moves to the next of its lists, so that each edit changes something.
EDIT_USERS = """
update shop.users
set
    country = (%(countries)s::text[])[1 + coalesce(array_position(%(countries)s, country), 0) %% cardinality(%(countries)s)],
    segment = (%(segments)s::text[])[1 + coalesce(array_position(%(segments)s, segment), 0) %% cardinality(%(segments)s)],
    updated_at = %(now)s
where id = any(%(ids)s)
"""


@dataclass(frozen=True)
class Acts:
    """The ids of the orders placed, edited and deleted and of the users edited, ascending."""

    placed: tuple[int, ...] = ()
    edited: tuple[int, ...] = ()
    deleted: tuple[int, ...] = ()
    edited_users: tuple[int, ...] = ()


def act(url: str, *, place: int = 0, edit: int = 0, delete: int = 0, edit_users: int = 0, seed: int = 0) -> Acts:
    """Let the company (the owner's connection string) do so many of each act, at `warehouse.clock.now()`, in one transaction.

    New orders are by existing customers and take the next ids, which are never used again. No order is both edited and
    deleted, or placed and either. The same seed on the same company does the same; the same seed again edits the same again.

    Raises:
        UsageError: a number is negative, or there are fewer orders or users than are to be touched.
        StepFailed: the server cannot be reached or refuses; nothing was done then.
    """
    if min(place, edit, delete, edit_users) < 0:
        raise UsageError("the number of acts cannot be negative.", mend="give 0 or more")
    given = {"seed": str(seed), "now": clock.now()}
    with session(url) as cur:
        old = _pick(cur, PICK_ORDERS, edit + delete, "orders", seed)
        users = _pick(cur, PICK_USERS, edit_users, "users", seed)
        edited, deleted = old[:edit], old[edit:]
        placed: list[int] = []
        if place:
            cur.execute(PLACE, {**given, "many": place, "currency": CURRENCY})
            placed = [row[0] for row in cur.fetchall()]
        if edited:
            cur.execute(EDIT, {**given, "ids": edited})
        if deleted:
            cur.execute(DELETE, {"ids": deleted})
        if users:
            cur.execute(EDIT_USERS, {**given, "ids": users, "countries": list(COUNTRIES), "segments": list(SEGMENTS)})
    return Acts(*(tuple(sorted(ids)) for ids in (placed, edited, deleted, users)))


def _pick(cur: cursor, query: str, many: int, what: str, seed: int) -> list[int]:
    if not many:
        return []
    cur.execute(query, {"seed": str(seed), "many": many})
    found = [row[0] for row in cur.fetchall()]
    if len(found) < many:
        raise UsageError(f"{many} {what} are to be touched, and the company has {len(found)}.", mend="ask for fewer")
    return found
