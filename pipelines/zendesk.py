"""Zendesk Support: lists, then incremental exports, each going on exactly where the rows in the warehouse end.

Every row of an export carries the cursor that Zendesk gave with it, so that rows and cursor are written in one transaction
and the warehouse itself says how far it got (docs/adr/0014-zendesk-cursor-with-its-rows.md). What is unpacked from an
export (comments, histories, metrics) is in the warehouse before the rows that carry the cursor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.pace import Estimate
from pipelines.source import FOLDER, LOADED_AT, Extract, Reading
from pipelines.zendesk_client import WAITING, Client, Refused
from pipelines.zendesk_events import unpack
from pipelines.zendesk_fields import CustomFields
from pipelines.zendesk_rows import CURSOR, Batch, Object, Table, ZendeskDeclaration, rank
from pipelines.zendesk_write import Written, write_batch
from warehouse import clock
from warehouse.console import tell
from warehouse.declared import read
from warehouse.errors import StepFailed, UsageError
from warehouse.settings import settings

if TYPE_CHECKING:
    from dlt.extract import DltSource

_LAST_MINUTE = 61
"""Seconds: Zendesk shows no change of the last minute, and refuses to be asked for it by time."""
_REFUSED_CURSOR = (400, 404, 410, 422)
Batches = dict[str, Batch]


def declaration() -> ZendeskDeclaration:
    """The validated `pipelines/zendesk.yaml`."""
    return read(FOLDER / "zendesk.yaml", ZendeskDeclaration)


def zendesk(reading: Reading) -> "DltSource":
    """The dlt source: one pass over some pages; the load asks for passes until every export has reached its end.

    Raises:
        UsageError: a setting is missing, or the credentials are refused. StepFailed: Zendesk does not answer, or not sensibly.
    """
    import dlt

    declared = declaration()
    settings().hmac_key()
    is_first = not reading.memory
    if is_first:
        reading.memory.update(turn=0, account=_Account(reading, declared))
        reading.memory["steps"] = reading.memory["account"].steps()
    reading.memory["turn"] += 1
    batches, reading.more = next(reading.memory["steps"])

    @dlt.source(name="zendesk", max_table_nesting=0)  # type: ignore[untyped-decorator]  # dlt types no decorator
    def source() -> Iterator[Any]:
        for name in declared.tables:
            if name in batches or (is_first and not reading.held(name, None).columns):
                rows = _rows(reading, declared, name, batches.get(name) or Batch())
                yield dlt.resource(rows, name=name, write_disposition="append", columns={LOADED_AT: {"data_type": "timestamp"}})

    return source()


def check_connection() -> str:
    """Ask who we are, for `warehouse doctor`.

    Raises:
        StepFailed, UsageError: as in `zendesk`.
    """
    declared = declaration()
    try:
        role = _client(declared).get("users/me.json").get("user", {}).get("role")
    except Refused as refused:
        raise _refusal("users/me.json", refused) from None
    if role != "admin":
        raise UsageError(f"zendesk: the credentials are of a user whose role is {role}.", mend="incremental exports are for administrators: use one's client")
    return "Zendesk answers, signed in as an administrator" + ("" if settings().zendesk_oauth() else " by an API token, which ends in April 2027")


def _client(declared: ZendeskDeclaration) -> Client:
    return Client(declared.exports_per_minute, declared.requests_per_minute, declared.timeout.total_seconds())


def _rows(reading: Reading, declared: ZendeskDeclaration, name: str, batch: Batch) -> Iterator[Any]:
    """The body of a resource: write, mark what a list no longer has, drop what is known, land."""
    from dlt.extract import with_file_import

    table = declared.tables[name]
    held = reading.held(name, None)
    now = clock.now()
    loaded_at = max(now, held.loaded_at + timedelta(microseconds=1)) if held.loaded_at else now
    file = reading.work / f"{name}-{reading.memory['turn']}.parquet"
    custom = reading.memory["account"].custom
    written: Written = write_batch(reading, name, table, held, batch, loaded_at, file, custom)
    extract = Extract(name, file, rows_read=len(batch.objects) + len(batch.beside), primary_key=table.key, findings=batch.findings + written.findings)
    extract.asked = [f"GET /api/v2/{table.path}"] if table.path else []
    reading.extracts[name] = extract
    rows = reading.without_known(name, table.key, file) if held.loaded_at else written.rows
    extract.rows_deleted = min(written.deleted, rows)
    extract.rows_changed = rows - extract.rows_deleted
    if rows:
        yield with_file_import(str(reading.land(name, table.key, file, table.newest_by)), "jsonl", rows)


@dataclass
class _Page:
    """One answer of an export: its objects, where the export goes on, and the time in Zendesk that it has reached."""

    objects: list[Object]
    answer: Object
    cursor: str
    position: float | None
    findings: list[str] = field(default_factory=list)


class _Account:
    """What is to be read, pass by pass."""

    def __init__(self, reading: Reading, declared: ZendeskDeclaration) -> None:
        self._reading, self._declared = reading, declared
        self._client = _client(declared)
        start = settings().sources.zendesk.start_date
        self._start = int(datetime.combine(start, time(), UTC).timestamp()) if start else 0
        self.custom = CustomFields([], [], [])

    def steps(self) -> Iterator[tuple[Batches, bool]]:
        """What to write next, and whether more will come: what comes with an export's rows goes before the rows themselves."""
        beside, rows = self._lists(), Batches()
        exports = {name: table for name, table in self._declared.tables.items() if table.export}
        cursors = {name: self._held_cursor(name) for name in exports}
        pages = 0
        for name, table in exports.items():
            for page in self._pages(name, table, cursors[name]):
                self._sort(name, page, beside, rows)
                pages += 1
                if pages >= self._declared.pages_per_pass:
                    if beside:
                        yield beside, True
                    yield rows, True
                    beside, rows, pages = {}, {}, 0
        if beside:
            yield beside, True
        yield rows, False

    def _lists(self) -> Batches:
        """Every list, whole or since a while."""
        batches: Batches = {}
        for name, table in self._declared.tables.items():
            if table.export or not table.path:
                continue
            batch = batches[name] = Batch()
            try:
                for parent in [one["id"] for one in batches[table.parent].objects] if table.parent else [None]:
                    path = table.path.format(parent)
                    for page in self._client.pages(path, table.items or name, **self._since(name, table)):
                        batch.objects += [{**one, f"{table.parent.removesuffix('s')}_id": parent} for one in page] if table.parent else page
                is_whole = not table.since and (table.parent is None or batches[table.parent].keys is not None)
                batch.keys = [int(one["id"]) for one in batch.objects] if is_whole else None
            except Refused as refused:
                self._do_without(name, table, refused, batch)
        definitions = batches["ticket_fields"].objects
        self.custom = CustomFields(definitions, self._held_definitions(), self._reading.held("tickets", None).columns)
        batches["ticket_fields"].findings += self.custom.findings
        for one in definitions:
            one["column_name"] = self.custom.column_of(int(one["id"]))
        return batches

    def _since(self, name: str, table: Table) -> Object:
        newest = self._one(name, f"SELECT max(updated_at) FROM raw_zendesk.{name}") if table.since else None
        begin = int((newest - table.since).timestamp()) if newest and table.since else self._start if table.since else 0
        return {**table.parameters, **({"start_time": begin} if begin else {})}

    def _do_without(self, name: str, table: Table, refused: Refused, batch: Batch) -> None:
        """A list that the plan does not have is a finding the first time; one that was there before, each time."""
        if refused.status not in (403, 404):
            raise _refusal(str(table.path), refused)
        held = self._reading.held(name, None)
        batch.objects.clear()
        if held.rows or held.primary_key is None:
            batch.findings.append(
                f"zendesk: {name} cannot be listed (HTTP {refused.status}); {'what was loaded before stays' if held.rows else 'the table stays empty'}.\n"
                "  mend: nothing if your plan does not have it; otherwise let an administrator make the OAuth client, with the scope `read`"
            )

    def _pages(self, name: str, table: Table, cursor: str | None) -> Iterator[_Page]:
        """The pages of an export from a cursor, or from the start date."""
        estimate: Estimate | None = None
        for page in self._by_cursor(name, table, cursor) if table.export == "cursor" else self._by_time(name, table, cursor):
            if page.position is not None:
                now = WAITING.monotonic()
                estimate = estimate or Estimate(now, page.position, clock.now().timestamp() - _LAST_MINUTE)
                tell(f"zendesk {name} up to {datetime.fromtimestamp(page.position, UTC):%Y-%m-%d %H:%M}, {estimate.said(page.position, now)}")
            yield page

    def _by_cursor(self, name: str, table: Table, cursor: str | None) -> Iterator[_Page]:
        query: Object = {"cursor": cursor} if cursor else {"start_time": self._start}
        findings: list[str] = []
        while True:
            try:
                answer = self._client.get(str(table.path), per_page=self._declared.page_size, **table.parameters, **query)
            except Refused as refused:
                if refused.status not in _REFUSED_CURSOR or query.get("cursor") != cursor or cursor is None:
                    raise _refusal(str(table.path), refused) from None
                query, cursor = {"start_time": self._known_time(name, table)}, None
                findings.append(
                    f"zendesk: the cursor kept with {name} is refused (HTTP {refused.status}); the export began again at the newest row held.\n  mend: nothing"
                )
                continue
            objects, after = answer.get(table.items or name) or [], answer.get("after_cursor")
            if after:
                yield _Page(objects, answer, str(after), _seconds(rank(table, objects[-1])) if objects else None, findings)
            findings = []
            if answer.get("end_of_stream"):
                return
            if not after or after == query.get("cursor"):
                raise _stuck(str(table.path))
            query, cursor = {"cursor": after}, None

    def _by_time(self, name: str, table: Table, cursor: str | None) -> Iterator[_Page]:
        start = min(int(cursor) if cursor else self._start, int(clock.now().timestamp()) - _LAST_MINUTE)
        while True:
            try:
                answer = self._client.get(str(table.path), per_page=self._declared.page_size, start_time=start, **table.parameters)
            except Refused as refused:
                if "too recent" in refused.said.lower():  # our clock is ahead of Zendesk's: there is nothing new yet
                    return
                raise _refusal(str(table.path), refused) from None
            objects, end = answer.get(table.items or name) or [], answer.get("end_time")
            reached = start if end is None else int(end)
            yield _Page(objects, answer, str(reached), reached if end else None)
            if answer.get("end_of_stream", len(objects) < self._declared.page_size):
                return
            if reached > start:
                start = reached
            elif reached == start and len(objects) > self._declared.page_size:
                start += 1  # a page never ends within a second: it was longer than asked for, so the second is complete
            else:
                raise _stuck(str(table.path))

    def _sort(self, name: str, page: _Page, beside: Batches, rows: Batches) -> None:
        """Put the objects of a page, and what came with them, into the batches of their tables."""
        batch = rows.setdefault(name, Batch())
        batch.cursor = page.cursor
        batch.findings += page.findings
        if name == "ticket_events":
            history, comments = beside.setdefault("ticket_field_history", Batch()), beside.setdefault("ticket_comments", Batch())
            batch.objects += [unpack(event, self.custom, history, comments) for event in page.objects]
            return
        batch.objects += page.objects
        if name == "tickets":
            stamps = {one["id"]: one.get("generated_timestamp") for one in page.objects}
            metrics = [*(page.answer.get("metric_sets") or []), *(one["metric_set"] for one in page.objects if one.get("metric_set"))]
            beside.setdefault("ticket_metrics", Batch()).objects += [{**one, "generated_timestamp": stamps.get(one["ticket_id"])} for one in metrics]
            for other in ("users", "groups"):
                beside.setdefault(other, Batch()).beside += page.answer.get(other) or []

    def _held_cursor(self, name: str) -> str | None:
        held = self._reading.held(name, None)
        if CURSOR not in held.columns:
            return None
        found = self._one(name, f"SELECT arg_max({CURSOR}, {LOADED_AT}) FROM raw_zendesk.{name} WHERE {CURSOR} IS NOT NULL")
        return None if found is None else str(found)

    def _known_time(self, name: str, table: Table) -> int:
        """The time in Zendesk up to which an export was read: that of the newest row that came by it."""
        newest = self._one(name, f"SELECT max({table.newest_by}) FROM raw_zendesk.{name} WHERE {CURSOR} IS NOT NULL")
        return min(self._start if newest is None else int(_seconds(newest)), int(clock.now().timestamp()) - _LAST_MINUTE)

    def _held_definitions(self) -> list[Object]:
        if not {"type", "column_name"} <= self._reading.held("ticket_fields", None).columns.keys():
            return []
        found = self._reading.connection.execute("SELECT id, type, column_name FROM raw_zendesk.ticket_fields WHERE column_name IS NOT NULL").fetchall()
        return [{"id": number, "type": type_, "column_name": name} for number, type_, name in found]

    def _one(self, name: str, query: str) -> Any:
        row = self._reading.connection.execute(query).fetchone() if self._reading.held(name, None).columns else None
        return row[0] if row else None


def _seconds(at: datetime | int) -> float:
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _refusal(path: str, refused: Refused) -> UsageError | StepFailed:
    if refused.status == 403:
        return UsageError(f"zendesk: {path} is forbidden (HTTP 403).", mend="incremental exports are for administrators: let one make the OAuth client")
    said = f": {refused.said}" if refused.said else ""
    return StepFailed(
        f"zendesk: {path} is refused (HTTP {refused.status}){said}", mend="run again; if it stays so, compare pipelines/zendesk.yaml with the API"
    )


def _stuck(path: str) -> StepFailed:
    return StepFailed(
        f"zendesk: the cursor of {path} does not move although more is to come; going on would repeat for ever or skip.",
        mend="run again later: what was read is kept, and reading goes on from there",
    )
