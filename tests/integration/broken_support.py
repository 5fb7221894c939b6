"""One bad row for every rule of every contract and every audit of the marts of support, and the statement that breaks it."""

Broken = tuple[str, str | None, str, str]
SCHEDULES, HOURS, HISTORY = "marts.schedule_history", "marts.business_hours", "marts.ticket_status_history"
FACTS, BACKLOG, DAILY = "marts.ticket_facts", "marts.ticket_backlog_daily", "marts.support_daily"
MOVED = "opened reopened solved deleted"
_MISSING = {
    SCHEDULES: "schedule_id loaded_at valid_from",
    HOURS: "schedule_id local_date opens_at closes_at seconds_before",
    HISTORY: "ticket_id step status state valid_from basis",
    FACTS: "ticket_id created_at created_date agent_replies agents reopens is_deleted loaded_at",
    BACKLOG: f"date open_at_start {MOVED} open_at_end",
    DAILY: "date tickets orders first_replies replies_in_time replies_late rated_good rated_bad",
}
_KEYS = {SCHEDULES: None, HOURS: None, HISTORY: None, FACTS: "ticket_id", BACKLOG: "date", DAILY: "date"}
_DAYS = {FACTS: "created_date", BACKLOG: "date", DAILY: "date"}
_MEASURED = ("first_reply", "full_resolution")
_DAY = "TIMESTAMP '1997-01-01' + INTERVAL (i) DAY"
GOOD = {(HOURS, "closes_at"): f"{_DAY} + INTERVAL 1 HOUR", (HISTORY, "state"): "'open'", (FACTS, "satisfaction"): "'good'", (DAILY, "replies_late"): "0"}
"""SQL for good values of row i where those of other tables would not do."""


def _first(table: str, change: str) -> str:
    return f"UPDATE {table} SET {change} WHERE rowid = 0"


BROKEN: list[Broken] = [
    *((table, column, "missing", _first(table, f"{column} = NULL")) for table, columns in _MISSING.items() for column in columns.split()),
    *((table, key, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table, key in _KEYS.items()),
    *((table, day, "not_in_the_future", _first(table, f"{day} = DATE '2026-03-03'")) for table, day in _DAYS.items()),
    (SCHEDULES, "valid_to", "after_valid_from", _first(SCHEDULES, "valid_to = valid_from")),
    (HOURS, "closes_at", "after_opens_at", _first(HOURS, "closes_at = opens_at")),
    (HOURS, "seconds_before", "not_negative", _first(HOURS, "seconds_before = -1")),
    (HISTORY, "valid_to", "not_before_valid_from", _first(HISTORY, "valid_to = valid_from - INTERVAL 1 SECOND")),
    (HISTORY, "state", "invalid", _first(HISTORY, "state = 'new'")),
    *((FACTS, f"{what}_minutes", "not_negative", _first(FACTS, f"{what}_minutes = -1, {what}_business_minutes = NULL")) for what in _MEASURED),
    (FACTS, "first_resolution_minutes", "not_negative", _first(FACTS, "first_resolution_minutes = -1")),
    *((FACTS, f"{what}_business_minutes", "part_of_all", _first(FACTS, f"{what}_business_minutes = 1")) for what in _MEASURED),
    (FACTS, "agent_replies", "not_negative", _first(FACTS, "agent_replies = -1, agents = -1")),
    (FACTS, "agents", "part_of_replies", _first(FACTS, "agents = 1")),
    (FACTS, "reopens", "not_negative", _first(FACTS, "reopens = -1")),
    (FACTS, "satisfaction", "invalid", _first(FACTS, "satisfaction = 'offered'")),
    (BACKLOG, "open_at_start", "not_negative", _first(BACKLOG, "open_at_start = -1, open_at_end = -1")),
    (BACKLOG, "open_at_end", "adds_up", _first(BACKLOG, "open_at_end = 1")),
    (DAILY, "contact_rate", "not_negative", _first(DAILY, "contact_rate = -0.000001")),
    (DAILY, "replies_late", "part_of_replies", _first(DAILY, "replies_late = 1")),
    *((DAILY, "satisfaction_rate", "between_0_and_1", _first(DAILY, f"satisfaction_rate = {rate}")) for rate in (-0.000001, 1.000001)),
]  # fmt: skip

COMBINED = (SCHEDULES, HOURS, HISTORY)
NEVER_NULL = {
    SCHEDULES: ("{schedule_history}", "schedule_id valid_from"),
    HOURS: ("{business_hours}", "schedule_id closes_at"),
    HISTORY: ("{ticket_status_history}", "ticket_id state"),
    FACTS: ("{ticket_facts}", "ticket_id created_date reopens"),
    BACKLOG: ("{ticket_backlog_daily}", "date open_at_end"),
    DAILY: ("{support_daily}", "date orders"),
}
_TABLE = {model: table for model, (table, _) in NEVER_NULL.items()}


def _one(model: str, change: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"UPDATE {table} SET {change} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


def _without_one(model: str, where: str = "true") -> str:
    table = _TABLE[model]
    return f"DELETE FROM {table} WHERE rowid = (SELECT MIN(rowid) FROM {table} WHERE {where})"


def _raw(name: str, change: str) -> str:
    return f"UPDATE raw_zendesk.{name} SET {change} WHERE id = 1"


_STATEMENTS = {
    (HOURS, "spans_do_not_overlap"): (
        _one(HOURS, "seconds_before = seconds_before + 1"),
        _one(HOURS, "closes_at = closes_at + INTERVAL 7 DAY"),
        _one(HOURS, "closes_at = opens_at"),
        _without_one(HOURS, "seconds_before > 0"),
    ),
    (HISTORY, "statuses_match_tickets"): (
        _without_one(HISTORY, "step = 1"),
        _without_one(HISTORY, "step = 2"),
        _one(HISTORY, "state = 'open'", "step = 2"),
        _one(HISTORY, "valid_from = valid_from + INTERVAL 1 SECOND", "step = 1"),
        _one(HISTORY, "previous_state = NULL", "step = 2"),
        _raw("tickets", "is_deleted = true"),
        "INSERT INTO raw_zendesk.tickets BY NAME SELECT 9 AS id, 'open' AS status",
        "DELETE FROM raw_zendesk.tickets WHERE id = 2",
    ),
    (FACTS, "business_time_is_part_of_all"): (
        _one(FACTS, "first_reply_business_minutes = first_reply_minutes + 1", "agents > 0"),
        _one(FACTS, "full_resolution_business_minutes = full_resolution_minutes + 1", "solved_at IS NOT NULL"),
        _one(FACTS, "first_resolution_minutes = full_resolution_minutes + 1", "solved_at IS NOT NULL"),
        _one(FACTS, "first_reply_minutes = -1, first_reply_business_minutes = NULL"),
        _one(FACTS, "first_reply_at = NULL", "agents > 0"),
        _one(FACTS, "agents = 2, agent_replies = 1", "agents > 0"),
    ),
    (FACTS, "tickets_match_staging"): (
        _without_one(FACTS),
        _one(FACTS, "status = 'pending'"),
        _one(FACTS, "is_deleted = true"),
        _one(FACTS, "reopens = reopens + 1"),
        _one(FACTS, "solved_at = NULL", "solved_at IS NOT NULL"),
        _one(FACTS, "solved_at = created_at", "solved_at IS NULL"),
        _one(FACTS, "agent_replies = agent_replies + 1"),
        _raw("tickets", "_loaded_at = '1998-02-21 10:00:00+00'"),
        _raw("ticket_comments", "is_public = false"),
        "INSERT INTO raw_zendesk.tickets BY NAME SELECT 9 AS id",
    ),
    (BACKLOG, "not_after_the_report_day"): (_one(BACKLOG, "date = DATE '1998-03-02'"),),
    (BACKLOG, "backlog_adds_up"): (
        *(_one(BACKLOG, f"{column} = {column} + 1") for column in ("open_at_start", *MOVED.split(), "open_at_end")),
        _without_one(BACKLOG, "date = '1998-02-10'"),
        _one(BACKLOG, "date = DATE '1998-02-28'", "date = '1998-02-20'"),
        _one(BACKLOG, "open_at_start = 0, open_at_end = 0, deleted = 1", "date = '1998-02-20'"),
        f"UPDATE {_TABLE[BACKLOG]} SET open_at_start = open_at_start + 1, open_at_end = open_at_end + 1",
        f"UPDATE {_TABLE[HISTORY]} SET state = 'open'",
        _one(FACTS, "created_date = created_date - 1"),
        f"DELETE FROM {_TABLE[BACKLOG]}",
    ),
    (DAILY, "totals_match_tickets_and_orders"): (
        *(_one(DAILY, f"{column} = {column} + 1") for column in ("tickets", "first_replies", "rated_good", "rated_bad", "orders")),
        _one(FACTS, "is_deleted = true"),
        f"DELETE FROM {_TABLE[DAILY]}",
    ),
}  # fmt: skip
BROKEN_AUDITS: list[tuple[str, str, str]] = [(model, audit, statement) for (model, audit), statements in _STATEMENTS.items() for statement in statements]
