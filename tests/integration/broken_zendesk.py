"""One bad row for every rule of every contract of Zendesk's tables, and the statement that breaks it."""

from pipelines.zendesk import declaration

Broken = tuple[str, str | None, str, str]
SCHEDULES = "staging.stg_zendesk__schedules"
STAGED = {
    "groups": "group_id", "organizations": "organization_id", "satisfaction_ratings": "rating_id", "ticket_comments": "comment_id",
    "schedule_holidays": "holiday_id", "schedules": "schedule_id", "ticket_field_history": "change_id", "ticket_metric_events": "metric_event_id",
    "ticket_metrics": "metric_id", "tickets": "ticket_id", "users": "user_id",
}  # fmt: skip


def _broken(table: str, key: str, loaded_at: str) -> list[Broken]:
    is_history = table.endswith("ticket_field_history")
    never_null = [key, loaded_at, *(["field"] if is_history else [])]
    found: list[Broken] = [(table, column, "missing", f"UPDATE {table} SET {column} = NULL WHERE rowid = 0") for column in never_null]
    found.append((table, None if is_history else key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0"))
    if table.endswith("users"):
        found.append((table, "email_hash", "invalid", f"UPDATE {table} SET email_hash = 'A' || email_hash[2:] WHERE rowid = 0"))
    return found


BROKEN: list[Broken] = [
    *(broken for name in declaration().tables for broken in _broken(f"raw_zendesk.{name}", "id", "_loaded_at")),
    *(broken for name, key in STAGED.items() for broken in _broken(f"staging.stg_zendesk__{name}", key, "loaded_at")),
    (SCHEDULES, "iana_time_zone", "time_zone_is_known", f"UPDATE {SCHEDULES} SET iana_time_zone = NULL WHERE rowid = 0"),
]

HISTORY = "staging.stg_zendesk__ticket_field_history"
NEVER_NULL = {f"staging.stg_zendesk__{name}": (f"raw_zendesk.{name}", "id field" if name == "ticket_field_history" else "id") for name in STAGED}
COMBINED = (HISTORY,)
"""The views of which more than one column tells rows apart."""

_AT = "'1998-02-20 10:00:00+00'::TIMESTAMPTZ AS _loaded_at"
_STAMPS = "'1998-02-02 09:00:00+00'::TIMESTAMPTZ AS created_at, '1998-02-03 09:00:00+00'::TIMESTAMPTZ AS updated_at"
_SOLVED = "9 AS requester_id, 1 AS assignee_id, 'solved' AS status, false AS is_deleted"
_SLA = """'{"target": 480, "business_hours": true}' AS sla"""
_OF = {
    "tickets": f"{_SOLVED}, {_STAMPS}",
    "users": "'agent' AS role",
    "ticket_comments": "1 AS ticket_id, 1 AS author_id, true AS is_public, '1998-02-02 12:00:00+00'::TIMESTAMPTZ AS commented_at",
    "ticket_field_history": "1 AS ticket_id, 'status' AS field, 'create' AS change, 'new' AS value, '1998-02-02 09:00:00+00'::TIMESTAMPTZ AS changed_at",
    "satisfaction_ratings": f"1 AS ticket_id, 'good' AS score, {_STAMPS}",
    "schedules": f"""'UTC' AS time_zone, '[{{"start_time":1920,"end_time":2400}},{{"start_time":3360,"end_time":3840}}]' AS intervals, {_STAMPS}""",
    "schedule_holidays": "1 AS schedule_id, '1998-02-10'::DATE AS start_date, '1998-02-10'::DATE AS end_date",
    "ticket_metric_events": "1 AS ticket_id, 'reply_time' AS metric, 1 AS instance_id, 'apply_sla' AS type, "
    f"'1998-02-02 09:00:00+00'::TIMESTAMPTZ AS occurred_at, {_SLA}",
}
_ENDED = _OF["ticket_field_history"].replace("'create'", "'change'").replace("'new'", "'solved'").replace("1998-02-02", "1998-02-03")


def _insert(name: str, key: int, more: str) -> str:
    return f"INSERT INTO raw_zendesk.{name} BY NAME SELECT {key} AS id, {_AT}{', ' if more else ''}{more}"


ROWS = [
    *(_insert(name, 1, _OF.get(name, "")) for name in STAGED),
    _insert("tickets", 2, _OF["tickets"].replace("'solved'", "'open'")),
    _insert("ticket_field_history", 2, _ENDED),
]
"""A row of each of Zendesk's tables that a view reads: a ticket that was answered, solved and rated, and one that waits."""
