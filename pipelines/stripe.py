"""Stripe: lists at first, then the event feed as a list of what to fetch again; each object read once at the pinned version.

The warehouse itself says how far it got: a row's `_settled_at` is the instant as of which it was read, and events are
written only after the objects they speak of. So a load that dies anywhere is repeated from what is there, and where no
event reaches back far enough, everything is listed anew. Where no event was ever seen, how far they were read is noted.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.source import FOLDER, LOADED_AT, SETTLED_AT, Extract, Reading
from pipelines.stripe_client import PAGE, Client, Page
from pipelines.stripe_rows import Batch, Object, StripeDeclaration, instant, personal_paths, scrubbed, write
from pipelines.stripe_spool import Spooled
from warehouse import clock
from warehouse.declared import read
from warehouse.settings import settings
from warehouse.sql import parquet

if TYPE_CHECKING:
    from dlt.extract import DltSource

_EVENTS_KEPT = timedelta(days=30)
_TRUSTED = timedelta(days=29)
"""A cursor older than this may have missed events that expired."""
_SKEW = timedelta(seconds=5)
_BATCH = 2_000
Batches = dict[str, Batch]


def declaration() -> StripeDeclaration:
    """The validated `pipelines/stripe.yaml`."""
    return read(FOLDER / "stripe.yaml", StripeDeclaration)


def stripe(reading: Reading) -> "DltSource":
    """The dlt source: one pass over what was read next; the load asks for passes until nothing is left.

    Raises:
        UsageError: the key is missing or refused. StepFailed: Stripe does not answer.
    """
    import dlt

    declared = declaration()
    settings().hmac_key()
    is_first = not reading.memory
    if is_first:
        reading.memory["steps"] = _Account(reading, declared).steps()
    batches = next(reading.memory["steps"], None)
    reading.more = batches is not None
    if not reading.more and (until := reading.memory.get("polled_until")):
        reading.loaded.append(lambda: reading.note_read_until("events", until))

    @dlt.source(name="stripe", max_table_nesting=0)  # type: ignore[untyped-decorator]  # dlt types no decorator
    def source() -> Iterator[Any]:
        for name in declared.tables:
            batch = (batches or {}).get(name) or Batch()
            if is_first or batch.objects or batch.gone or batch.again:
                rows = _rows(reading, declared, name, batch)
                yield dlt.resource(rows, name=name, write_disposition="append", columns={LOADED_AT: {"data_type": "timestamp"}})

    return source()


def check_connection() -> str:
    """Ask for one object, for `warehouse doctor`.

    Raises:
        StepFailed, UsageError: as in `stripe`.
    """
    declared = declaration()
    Client(declared.api_version, declared.requests_per_second, declared.timeout.total_seconds()).get("customers", limit=1)
    return f"Stripe answers, version {declared.api_version}"


def _rows(reading: Reading, declared: StripeDeclaration, name: str, batch: Batch) -> Iterator[Any]:
    """The body of a resource: write, add tombstones with the last values, drop what is known, land."""
    from dlt.extract import with_file_import

    held = reading.held(name, None)
    now = clock.now()
    loaded_at = max(now, held.loaded_at + timedelta(microseconds=1)) if held.loaded_at else now
    file = reading.work / f"{name}-{now.timestamp()}.parquet"
    last_values = {row[0] for row in _held(reading, name, "id", [*batch.gone, *batch.again])} | {thing["id"] for thing, _ in batch.objects}
    stubs = [({"id": key, "deleted": True}, read_at) for key, (_, read_at) in batch.gone.items() if key not in last_values]
    write(name, declared, [*batch.objects, *stubs], loaded_at, file)
    _add_held(reading, name, batch, loaded_at, file)
    gap = reading.memory.pop("gap", None) if name == "events" else None
    extract = Extract(name, file, rows_read=len(batch.objects), primary_key=["id"], findings=[gap] if gap else [])
    reading.extracts[name] = extract
    extract.rows_deleted = len(batch.gone)
    if reading.memory.get("relisting") or batch.again:  # the instant of reading is what a repeated load goes on from
        extract.rows_changed = len(batch.objects) + len(batch.again)
    elif held.loaded_at and (batch.objects or batch.gone):
        extract.rows_changed, extract.rows_deleted = reading.without_known(name, ["id"], file), 0
    else:
        extract.rows_changed = len(batch.objects)
    if extract.rows_changed or extract.rows_deleted:
        yield with_file_import(str(reading.land(name, ["id"], file, SETTLED_AT)), "jsonl", extract.rows_changed + extract.rows_deleted)


def _add_held(reading: Reading, name: str, batch: Batch, loaded_at: datetime, file: Any) -> None:
    """Add rows held, as deleted or only seen again, and mark the stubs of what was never held."""
    if not batch.gone and not batch.again:
        return
    keys = [*batch.gone, *batch.again]
    marks = {
        "key": keys,
        "deleted": [*(at for at, _ in batch.gone.values()), *(None for _ in batch.again)],
        "settled": [*(at for _, at in batch.gone.values()), *batch.again.values()],
    }
    import pyarrow as pa

    instants = pa.timestamp("us", "UTC")
    schema = pa.schema([("key", pa.string()), ("deleted", instants), ("settled", instants)])
    reading.connection.register("_marks", pa.table(marks, schema=schema))
    marked = (
        "SELECT r.* REPLACE (coalesce(r.is_deleted, false) OR m.deleted IS NOT NULL AS is_deleted, coalesce(r.deleted_at, m.deleted) AS deleted_at, "
        f"coalesce(r._deleted_at, CASE WHEN m.deleted IS NOT NULL THEN $at::TIMESTAMPTZ END) AS _deleted_at, "
        f"m.settled AS {SETTLED_AT}, $at::TIMESTAMPTZ AS {LOADED_AT}) "
        "FROM {} r JOIN _marks m ON m.key = r.id"
    )
    file_rows = "SELECT f.* FROM read_parquet($file) f ANTI JOIN _marks m ON m.key = f.id"
    parts = [file_rows, marked.format("read_parquet($file)")]
    if reading.held(name, None).columns:
        parts.append(marked.format(f"raw_stripe.{name}"))
    both = file.with_suffix(".both")
    reading.connection.execute(f"COPY ({' UNION ALL BY NAME '.join(parts)}) TO {parquet(both)}", {"file": str(file), "at": loaded_at.isoformat()})
    reading.connection.unregister("_marks")
    both.replace(file)


def _held(reading: Reading, name: str, columns: str, keys: list[str], key: str = "id") -> list[tuple[Any, ...]]:
    if not keys or not reading.held(name, None).columns:
        return []
    return reading.connection.execute(f'SELECT {columns} FROM raw_stripe.{name} WHERE "{key}" IN (SELECT unnest($keys))', {"keys": keys}).fetchall()


def _full(batches: Batches) -> Iterator[Batches]:
    """The batches, emptied, when they hold enough to be loaded."""
    if sum(len(batch.objects) for batch in batches.values()) >= _BATCH:
        yield dict(batches)
        batches.clear()


def _created(begin: datetime, end: datetime) -> Object:
    """What was made from the second of one instant on until before that of another."""
    return {"created[gte]": int(begin.timestamp()), "created[lt]": int(end.timestamp())}


class _Account:
    """What is to be read, batch by batch; each is in the warehouse before the next is asked for."""

    def __init__(self, reading: Reading, declared: StripeDeclaration) -> None:
        self._reading, self._declared = reading, declared
        self._client = Client(declared.api_version, declared.requests_per_second, declared.timeout.total_seconds())
        self._now = clock.now()
        start = settings().sources.stripe.start_date
        self._start = int(datetime.combine(start, time(), UTC).timestamp()) if start else None

    def steps(self) -> Iterator[Batches]:
        """Lists where events do not reach back far enough, then what the events name, then the events themselves."""
        cursor = self._one(f"SELECT max({SETTLED_AT}) FROM raw_stripe.events", "events")
        if cursor is None and self._reading.held("events", None).columns:
            cursor = self._reading.read_until("events")  # an account of which no event was ever seen
        is_stale = cursor is not None and cursor < self._now - _TRUSTED
        memory = self._reading.memory
        if cursor is None or is_stale:
            memory["relisting"] = True
            if is_stale:
                memory["gap"] = (
                    f"stripe: the last events read are of {cursor:%Y-%m-%d}; Stripe keeps 30 days, so some may have been missed. Everything was listed anew.\n"
                    "  mend: nothing; `warehouse load stripe` must run at least once in 29 days"
                )
            yield from self._lists()
            if is_stale:
                yield from self._vanished()
            memory["relisting"] = False
        since = max(cursor or self._now - _EVENTS_KEPT, self._now - _EVENTS_KEPT)
        yield from self._events(since - self._declared.lag, cursor)

    def _lists(self) -> Iterator[Batches]:
        batches: Batches = {}
        for name, table in self._declared.tables.items():
            if table.parent or name == "events":
                continue
            got = self._bounds(name)
            ranges: list[Object] = [{}]
            if got:
                ranges = [{"created[gte]": got[1] - int(self._declared.lag.total_seconds())}, {"created[lte]": got[0]}]
            for bounds in ranges:
                for page, at in self._client.pages(self._declared.path(name), **{**self._since(), **table.parameters, **bounds}):
                    self._add(batches, name, page, at)
                    yield from _full(batches)
        if batches:
            yield batches

    def _bounds(self, name: str) -> tuple[int, int] | None:
        """The oldest and newest creation among what an interrupted listing has already read."""
        if not self._reading.held(name, None).columns:
            return None
        query = f"SELECT min(created_at), max(created_at) FROM raw_stripe.{name} WHERE {SETTLED_AT} >= $horizon AND NOT is_deleted"
        low, high = self._reading.connection.execute(query, {"horizon": self._now - _TRUSTED}).fetchall()[0]
        return (int(low.timestamp()), int(high.timestamp())) if low else None

    def _since(self) -> Object:
        return {"created[gte]": self._start} if self._start is not None else {}

    def _vanished(self) -> Iterator[Batches]:
        """What no list shows any more is asked for by its id: deleted, or older than the start date."""
        for name, table in self._declared.tables.items():
            if table.parent or name == "events":
                continue
            query = f"SELECT id FROM raw_stripe.{name} WHERE NOT is_deleted AND {SETTLED_AT} < $horizon"
            unseen = self._reading.connection.execute(query, {"horizon": self._now - _TRUSTED}).fetchall()
            batches: Batches = {}
            for (key,) in unseen:
                self._fetch(batches, name, key, self._now)
            if batches:
                yield batches

    def _events(self, since: datetime, cursor: datetime | None) -> Iterator[Batches]:
        """Days of events, oldest first; their objects are in the warehouse before they are."""
        fetched: dict[tuple[str, str], datetime] = {}
        spooled = Spooled(self._now, self._reading.memory.setdefault("told", {}))
        if cursor is not None:
            yield from self._drained(spooled, fetched, cursor)
        batches, events = self._followed(), Batch()
        fetched |= {(name, thing["id"]): at for name, batch in batches.items() for thing, at in batch.objects}
        settled = since
        for end, pages in self._spans(since):
            new: list[Object] = []
            settled = min(end, self._now)
            for page, at in pages:
                known = {row[0] for row in _held(self._reading, "events", "id", [event["id"] for event in page])}
                arrived = [event for event in page if event["id"] not in known]
                if cursor is not None:
                    spooled.polled(arrived)
                new += arrived
                settled = min(settled, at)
            yield from self._touched(batches, new, fetched)
            events.objects += [(self._without_personal(event), settled) for event in new]
            if len(events.objects) >= _BATCH:
                if batches:
                    yield batches
                yield {"events": events}
                batches, events = {}, Batch()
        if batches:
            yield batches
        quiet = self._declared.lag if spooled.brought else timedelta(days=1)  # webhooks that bring all leave nothing to move the cursor
        if not events.objects and (cursor is None or self._now - cursor > quiet):  # a quiet account: say that nothing was missed until now
            newest = self._one("SELECT arg_max(id, created_at) FROM raw_stripe.events", "events")
            if newest is None:
                self._reading.memory["polled_until"] = settled
            else:
                events.again[newest] = self._now
        if events.objects or events.again:
            yield {"events": events}
        if cursor is None:
            yield from self._drained(spooled, fetched, settled)

    def _spans(self, since: datetime) -> Iterator[tuple[datetime, Iterable[Page]]]:
        """The events since then, in parts that are read whole: all in one if they fit on a page, otherwise day by day, oldest first."""
        begin, latest = since, self._now + timedelta(seconds=2)
        page, at = next(self._client.pages("events", **_created(begin, latest)))
        if len(page) < PAGE:
            yield latest, [(page, at)]
            return
        while begin <= self._now:
            end = min(begin + timedelta(days=1), latest)
            yield end, self._client.pages("events", **_created(begin, end))
            begin = begin + timedelta(days=1)

    def _drained(self, spooled: Spooled, fetched: dict[tuple[str, str], datetime], settled: datetime) -> Iterator[Batches]:
        """What webhooks brought. It says nothing about what they missed: the cursor stays where polling got to."""
        for part in spooled.parts():
            known = {row[0] for row in _held(self._reading, "events", "id", list(part))}
            new = [event for key, event in part.items() if key not in known]
            spooled.take(new)
            batches: Batches = {}
            yield from self._touched(batches, new, fetched)
            if batches:
                yield batches
            if new:
                yield {"events": Batch([(self._without_personal(event), settled) for event in new])}

    def _touched(self, batches: Batches, events: list[Object], fetched: dict[tuple[str, str], datetime]) -> Iterator[Batches]:
        """Fetch what the events are about, each thing once; what is yielded is taken out of the batches."""
        touched: dict[tuple[str, str], list[Object]] = {}
        for event in events:
            thing = event["data"]["object"]
            table = self._declared.table_of(thing.get("object", ""))
            if table and thing.get("id"):
                touched.setdefault((table, thing["id"]), []).append(event)
        read: dict[tuple[str, str], datetime] = {}
        for table in {table for table, _ in touched}:
            keys = [key for of, key in touched if of == table]
            read |= {(table, key): read_at for key, read_at in _held(self._reading, table, f"id, {SETTLED_AT}", keys)}
        for (table, key), about in touched.items():
            read_at = fetched.get((table, key)) or read.get((table, key))
            newest = max(event["created"] for event in about)
            is_known = read_at is not None and read_at > (instant(newest) or self._now) + _SKEW
            if is_known:
                continue
            fetched[table, key] = clock.now()
            deletions = [event for event in about if event["type"].endswith(".deleted") and event["type"] != "customer.subscription.deleted"]
            last = max(deletions or about, key=lambda event: event["created"])
            self._fetch(batches, table, key, instant(last["created"]) or self._now, last["data"]["object"] if self._is_pinned(last) else None)
            yield from _full(batches)

    def _is_pinned(self, event: Object) -> bool:
        return bool(event.get("api_version") == self._declared.api_version)

    def _followed(self) -> Batches:
        """Lists of what has no event, or not always: the newest, back to what may still change by itself."""
        batches: Batches = {}
        for name, table in self._declared.tables.items():
            if not table.follow or not self._reading.held(name, None).columns:
                continue
            changing = f"min(created_at) FILTER (status = '{table.unsettled}')" if table.unsettled else "NULL::TIMESTAMPTZ"
            query = f"SELECT least(max(created_at), {changing}) FROM raw_stripe.{name}"
            back_to = self._one(query, name)
            bounds = {"created[gte]": int((back_to - self._declared.lag).timestamp())} if back_to else self._since()
            for page, at in self._client.pages(self._declared.path(name), **bounds):
                self._add(batches, name, page, at)
        return batches

    def _fetch(self, batches: Batches, name: str, key: str, gone_at: datetime, last: Object | None = None) -> None:
        """Read one object at the pinned version; what is not there any more becomes a tombstone."""
        at = clock.now()
        try:
            thing, at = self._client.get(f"{self._declared.path(name)}/{key}")
        except LookupError:
            thing = {"deleted": True}
        if not thing.get("deleted"):
            self._add(batches, name, [thing], at)
            return
        if last and not _held(self._reading, name, "id", [key]):
            self._add(batches, name, [last], at)
        batches.setdefault(name, Batch()).gone[key] = (gone_at, at)
        for child in self._declared.tables[name].children:
            for row in _held(self._reading, child, "id", [key], f"{self._declared.tables[child].parent}_id"):
                batches.setdefault(child, Batch()).gone[row[0]] = (gone_at, at)

    def _add(self, batches: Batches, name: str, things: list[Object], at: datetime) -> None:
        batches.setdefault(name, Batch()).objects += [(thing, at) for thing in things]
        for child, key in self._declared.tables[name].children.items():
            parent = f"{self._declared.tables[child].parent}"
            batch = batches.setdefault(child, Batch())
            present: set[str] = set()
            for thing in things:
                nested = thing.get(key) or {"data": []}
                whole = nested["data"]
                if nested.get("has_more"):
                    path, _, query = str(nested["url"]).removeprefix("/v1/").partition("?")
                    pages = self._client.pages(path, **({parent: thing["id"]} if query else {}))
                    whole = [one for page, _ in pages for one in page]
                batch.objects += [
                    ({**one, parent: thing["id"], "created": one.get("created", thing.get("created")), "livemode": thing.get("livemode")}, at) for one in whole
                ]
                present |= {one["id"] for one in whole}
            for (row,) in _held(self._reading, child, "id", [thing["id"] for thing in things], f"{parent}_id"):
                if row not in present:
                    batch.gone[row] = (at, at)

    def _without_personal(self, event: Object) -> Object:
        """An event as it is kept: of kinds that are not loaded only the id, of others nothing that is declared personal."""
        thing = event["data"]["object"]
        table = self._declared.table_of(thing.get("object", ""))
        if table is None:
            return {**event, "data": {"object": {"id": thing.get("id"), "object": thing.get("object")}}}
        personal = personal_paths(table, self._declared.tables[table])
        return {**event, "data": {name: scrubbed(part, personal) for name, part in event["data"].items()}}

    def _one(self, query: str, table: str) -> Any:
        row = self._reading.connection.execute(query).fetchone() if self._reading.held(table, None).columns else None
        return row[0] if row else None
