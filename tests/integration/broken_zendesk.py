"""One bad row for every rule of every contract of Zendesk's tables, and the statement that breaks it."""

from pipelines.zendesk import declaration

Broken = tuple[str, str | None, str, str]
STAGED = {
    "groups": "group_id", "organizations": "organization_id", "satisfaction_ratings": "rating_id", "ticket_comments": "comment_id",
    "ticket_field_history": "change_id", "ticket_metrics": "metric_id", "tickets": "ticket_id", "users": "user_id",
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
]

HISTORY = "staging.stg_zendesk__ticket_field_history"
NEVER_NULL = {f"staging.stg_zendesk__{name}": (f"raw_zendesk.{name}", "id field" if name == "ticket_field_history" else "id") for name in STAGED}
COMBINED = (HISTORY,)
"""The views of which more than one column tells rows apart."""

ROWS = [f"INSERT INTO raw_zendesk.{name} (id) VALUES (1)" for name in STAGED if name != "ticket_field_history"]
ROWS.append("INSERT INTO raw_zendesk.ticket_field_history (id, field) VALUES (1, 'status')")
"""A row of each of Zendesk's tables that a view reads."""
