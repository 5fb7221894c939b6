"""One bad row for every rule of every contract and every audit of consents and of who may be written to, and the statement that breaks it."""

Broken = tuple[str, str | None, str, str]
RAW, STAGED, CONSENTS, AUDIENCE = "raw_privacy.consents", "staging.stg_privacy__consents", "marts.consents", "marts.marketing_audience"

_WORDS = "source source_key purpose version is_given channel changed_at recorded_at"
_MISSING = {
    RAW: _WORDS,
    STAGED: f"{_WORDS} line",
    CONSENTS: "customer_key purpose version is_given changed_at channel words",
    AUDIENCE: "customer_key consent_version consented_at status orders",
}
GOOD = {(table, "customer_key"): "i::VARCHAR" for table in (CONSENTS, AUDIENCE)}

BROKEN: list[Broken] = [
    *((table, column, "missing", f"UPDATE {table} SET {column} = NULL WHERE rowid = 0") for table, columns in _MISSING.items() for column in columns.split()),
    *((table, None, "duplicate", f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 0") for table in (RAW, STAGED, CONSENTS)),
    (AUDIENCE, "customer_key", "duplicate", f"INSERT INTO {AUDIENCE} SELECT * FROM {AUDIENCE} WHERE rowid = 0"),
]

_AT = "'1998-01-01 00:00:00+00', '1998-01-02 00:00:00+00'"
ROWS = [
    f"INSERT INTO {RAW} VALUES ('postgres', '1', 'marketing', '1', true, 'form', {_AT}, 1), ('postgres', '2', 'marketing', '1', true, 'form', {_AT}, 2), "
    "('postgres', '2', 'marketing', '1', false, 'call', '1998-02-01 00:00:00+00', '1998-02-01 00:00:00+00', 3)"
]
NEVER_NULL = {
    STAGED: (RAW, "source source_key purpose is_given channel changed_at"),
    CONSENTS: ("{consents}", "customer_key purpose version is_given changed_at"),
    AUDIENCE: ("{marketing_audience}", "customer_key consent_version consented_at status orders"),
}
COMBINED = (STAGED, CONSENTS)
BROKEN_AUDITS: list[tuple[str, str, str]] = [
    (AUDIENCE, "audience_consents", statement)
    for statement in (
        f"DELETE FROM {RAW}",
        f"UPDATE {RAW} SET is_given = false WHERE source_key = '1'",
        f"INSERT INTO {RAW} SELECT * REPLACE (false AS is_given) FROM {RAW} WHERE source_key = '1'",
        "UPDATE {marketing_audience} SET customer_key = 'postgres:2'",
        "UPDATE {marketing_audience} SET customer_key = 'postgres:3'",
    )
]
