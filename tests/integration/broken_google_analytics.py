"""One bad row for every rule of every contract of Google Analytics' tables, and the statement that breaks it."""

from monitoring.contract_files import read_contracts
from pipelines.google_analytics import declaration

Broken = tuple[str, str | None, str, str]
TABLES = [table for table in read_contracts() if table.startswith(("raw_google_analytics.", "staging.stg_google_analytics__"))]
QUALITY = "raw_google_analytics.report_quality"


def _broken(table: str) -> list[Broken]:
    is_report = table.removeprefix("raw_google_analytics.").removeprefix("staging.stg_google_analytics__") in declaration().reports
    raw = table.startswith("raw_")
    if is_report:
        never_null = ["row_id", "property_id", "date", *(["is_final", "_loaded_at"] if raw else ["loaded_at"])]
    elif table.endswith("metadata"):
        never_null = ["property_id", "kind", "api_name", "_loaded_at" if raw else "loaded_at"]
    else:
        never_null = ["property_id", "report", "date", "row_count", *(["read_at", "_loaded_at"] if raw else ["loaded_at"])]
    broken: list[Broken] = [(table, column, "missing", f"UPDATE {table} SET {column} = NULL WHERE rowid = 0") for column in never_null]
    return [*broken, (table, "row_id" if is_report else None, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0")]


BROKEN: list[Broken] = [
    *(broken for table in TABLES for broken in _broken(table)),
    (QUALITY, None, "whole_days", f"UPDATE {QUALITY} SET report = 'pages', row_count = 7 WHERE rowid = 0"),
]

KEYS = {**dict.fromkeys(declaration().reports, "row_id property_id date"), "metadata": "property_id kind api_name", "report_quality": "property_id report date"}
NEVER_NULL = {f"staging.stg_google_analytics__{name}": (f"raw_google_analytics.{name}", columns) for name, columns in KEYS.items()}
COMBINED = tuple(f"staging.stg_google_analytics__{name}" for name in ("metadata", "report_quality"))
"""The views of which more than one column tells rows apart."""

_VALUES = {"date": "DATE '1998-02-01'", "transaction_id": "'2'", "transactions": "1", "event_name": "'view_item'", "session_source": "'(direct)'"}
_MORE = {"transactions": " transaction_id transactions session_source", "events": " event_name"}


def _row(name: str, columns: str) -> str:
    values = ", ".join(_VALUES.get(column, repr(column)) for column in columns.split())
    return f"INSERT INTO raw_google_analytics.{name} ({columns.replace(' ', ', ')}) VALUES ({values})"


ROWS = [_row(name, columns + _MORE.get(name, "")) for name, columns in KEYS.items()]
ROWS += [
    "UPDATE raw_google_analytics.report_quality SET report = 'events'",
    _row("transactions", KEYS["transactions"] + _MORE["transactions"]).replace("'row_id'", "'first'").replace("'2'", "'1'").replace("(direct)", "google"),
]
"""A row of each of Google Analytics' tables; two of orders of one user, the later one direct."""

RESTATED = ("UPDATE raw_google_analytics.acquisition SET sessions = 7", "UPDATE raw_google_analytics.events SET event_count = 7")
"""What a load does with days that Google restated."""
