"""Consent: who agreed to what, in which words, when, and who took it back. A record that only grows, and a table that models read.

The record holds tags alone, as the ledger of erasures does, and lies beside it: no backup brings a consent back that was
withdrawn since. `expose` says of which persons of the warehouse it speaks; the next build reads that.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy import erasures, rekey_records
from privacy.chain import Chain
from privacy.policy import Consents, policy
from privacy.pseudonyms import parameters
from privacy.subjects import EMAIL, Subject, make_persons, parse, tag, tagged
from warehouse import clock
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import settings
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE = "raw_privacy.consents"
_COLUMNS = (
    "source VARCHAR, source_key VARCHAR, purpose VARCHAR, version VARCHAR, is_given BOOLEAN, channel VARCHAR, "
    "changed_at TIMESTAMPTZ, recorded_at TIMESTAMPTZ, line BIGINT"
)
_FIELDS = {"subject", "purpose", "version", "given", "source", "at"}
_WORDS = {"given": True, "true": True, "withdrawn": False, "false": False}


@dataclass(frozen=True)
class Consent:
    """One person's word on one purpose.

    Attributes:
        version: of the text that was agreed to; of a withdrawal the one that it ends.
        source: where it was said: a form, a call, a file.
        at: when.
    """

    subject: Subject
    purpose: str
    version: str
    is_given: bool
    source: str
    at: datetime


def record_of_consents() -> Chain:
    """The record itself."""
    return Chain(settings().erasures / "consents.jsonl", settings().anchors / "consents.anchor")


def say(subject: Subject, purpose: str, *, is_given: bool, source: str, version: str | None = None, at: datetime | None = None) -> Consent:
    """A word that is to be recorded, held against the policy.

    Args:
        version: the one in force unless given.
        at: now unless given.

    Raises:
        UsageError: the purpose or the version is not declared, or the time has not come yet.
    """
    declared = declared_purpose(purpose)
    version = version or declared.version
    if version not in declared.versions:
        known = ", ".join(declared.versions)
        raise UsageError(f"version {version!r} of the purpose {purpose} is not declared.", mend=f"privacy/policy.yaml, consent.purposes.{purpose}: {known}")
    now = clock.now()
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)) if at else now
    if at > now:
        raise UsageError(f"{at.isoformat()} has not come yet.", mend="a consent is recorded when it was given")
    if not source.strip():
        raise UsageError("where it was said is missing.", mend="name the form, the call or the file as its source")
    return Consent(subject, purpose, version, is_given, source.strip(), at)


def declared_purpose(purpose: str) -> Consents:
    """The declaration of a purpose.

    Raises:
        UsageError: there is none.
    """
    found = policy().consent.purposes.get(purpose)
    if found is None:
        known = ", ".join(sorted(policy().consent.purposes)) or "none"
        raise UsageError(f"privacy/policy.yaml: consent.purposes does not declare {purpose!r}; declared: {known}", mend="declare it, or use one of these")
    return found


def record(consents: Iterable[Consent]) -> int:
    """Add words to the record, durable when this returns. Hold the lease. Returns how many."""
    recorded_at = clock.now().isoformat()
    lines = [
        {
            "subject": tag(one.subject.kind, one.subject.value), "purpose": one.purpose, "version": one.version, "given": one.is_given,
            "source": one.source, "at": one.at.isoformat(), "recorded_at": recorded_at, "key_id": settings().privacy.hmac_key_id,
            "emails": [rekey_records.sealed_email(one.subject.value)] if one.subject.kind == EMAIL else [],
        }
        for one in consents
    ]  # fmt: skip
    record_of_consents().extend(lines)
    return len(lines)


def read(file: Path) -> list[Consent]:
    """The words of a file: CSV with a header, or JSON, one object a line; fields subject, purpose, given (given, withdrawn), source, at, version.

    Raises:
        UsageError: a line is not one; the whole file is refused then, and the line named, without what stands in it.
    """
    found = []
    for number, fields in _lines(file):
        try:
            missing = sorted(_FIELDS - {"version"} - {name for name, value in fields.items() if value not in (None, "")})
            if missing or set(fields) - _FIELDS:
                raise UsageError(f"{', '.join(missing) or ', '.join(sorted(map(str, set(fields) - _FIELDS)))}: missing, or not a field")
            given = _WORDS.get(str(fields["given"]).strip().lower())
            if given is None:
                raise UsageError("given: allowed are given and withdrawn")
            at = datetime.fromisoformat(str(fields["at"]))
            subject, version = parse(str(fields["subject"])), str(fields.get("version") or "") or None
            found.append(say(subject, str(fields["purpose"]), is_given=given, source=str(fields["source"]), version=version, at=at))
        except ValueError:
            raise _refused(file, number, "at: no ISO date and time") from None
        except WarehouseError as error:
            raise _refused(file, number, error.what) from None
    return found


def _refused(file: Path, number: int, why: str) -> UsageError:
    return UsageError(f"{file.name} line {number}: {why}", mend="mend that line; nothing of the file was recorded")


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8", newline="") as opened:
        if file.suffix == ".csv":
            yield from enumerate(csv.DictReader(opened), start=2)
            return
        for number, line in enumerate(opened, start=1):
            try:
                fields = json.loads(line)
            except ValueError:
                fields = None
            if not isinstance(fields, dict):
                raise _refused(file, number, "is no JSON object")
            yield number, fields


def _words() -> list[dict[str, Any]]:
    """The lines that somebody said; others tell of a change of key."""
    return [line for line in record_of_consents().lines() if "subject" in line]


def said_by(tags: set[str]) -> list[dict[str, Any]]:
    """The words on record of the persons with these tags, the oldest first."""
    wanted = ("purpose", "version", "given", "source", "at", "recorded_at")
    return [{name: line[name] for name in wanted} for line in _words() if line["subject"] in tags]


def expose(connection: "DuckDBPyConnection") -> int:
    """Make the table that models read: every word on record of each person whom the warehouse knows. Hold the lease.

    A word by an email that several persons of one system have counts for all of them when it withdraws, and for none when it
    gives. What was said before a person was erased is nobody's.

    Returns:
        its rows.
    """
    connection.execute("CREATE SCHEMA IF NOT EXISTS raw_privacy")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _said ({_COLUMNS})")
    lines = _words()
    if lines:
        make_persons(connection)
        _say_by_tags(connection, lines)
    for one in policy().consent.columns:
        _say_by_column(connection, one.table, one.column, one.purpose, one.version, one.at)
    if _content(connection, TABLE) != _content(connection, "_said"):  # a run with nothing to do writes nothing
        connection.execute(f"CREATE OR REPLACE TABLE {TABLE} AS SELECT * FROM _said ORDER BY ALL")
    row = connection.execute(f"SELECT count(*) FROM {TABLE}").fetchone()
    return int(row[0]) if row else 0


def _content(connection: "DuckDBPyConnection", table: str) -> tuple[object, ...] | None:
    """What is in a table, in short; None where it is not there, or was only made for models to read."""
    made = "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name || '.' || table_name = ? AND comment IS NULL"
    if table == TABLE and not connection.execute(made, [table]).fetchone():
        return None
    return connection.execute(f"SELECT count(*), bit_xor(hash(one)), sum(hash(one)) FROM {table} AS one").fetchone()


def _say_by_tags(connection: "DuckDBPyConnection", lines: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa

    wanted = ("number", "subject", "purpose", "version", "given", "source", "at", "recorded_at")
    given = pa.Table.from_pylist([{name: one[name] for name in wanted} for one in lines])
    connection.register("_lines", given)
    if not erasures.bind(connection):
        connection.execute("CREATE OR REPLACE TEMP TABLE _erased (tag VARCHAR, erased_at TIMESTAMPTZ)")
    own, by_email = tagged("any", "kind || ':' || value"), tagged(EMAIL, "email")
    connection.execute(
        f"INSERT INTO _said WITH persons AS (SELECT kind, value, {own} AS tag, false AS is_shared FROM _persons UNION ALL "
        f"SELECT kind, value, {by_email}, count(*) OVER (PARTITION BY kind, email) > 1 FROM _persons WHERE email IS NOT NULL) "
        "SELECT DISTINCT p.kind, p.value, l.purpose, l.version, l.given, l.source, l.at::TIMESTAMPTZ, l.recorded_at::TIMESTAMPTZ, l.number "
        "FROM _lines l JOIN persons p ON p.tag = l.subject LEFT JOIN _erased e ON e.tag = l.subject "
        "WHERE (e.tag IS NULL OR l.at::TIMESTAMPTZ > e.erased_at) AND NOT (p.is_shared AND l.given)",
        parameters(),
    )
    connection.unregister("_lines")


def _say_by_column(connection: "DuckDBPyConnection", table: str, column: str, purpose: str, version: str, at: str) -> None:
    from privacy.rows import columns_of

    source, _, name = table.partition(".")
    rule = policy().subjects[table]
    kind = rule.person or next(one for one in rule.of.values() if one != EMAIL)
    key = rule.key if rule.person else next(column for column, one in rule.of.items() if one == kind)
    if {column, key, at} - set(columns_of(connection, f"raw_{source}", name)):
        return  # never loaded
    connection.execute(
        f"INSERT INTO _said SELECT {literal(kind)}, {quoted(key)}::VARCHAR, {literal(purpose)}, {literal(version)}, bool_and({quoted(column)}::BOOLEAN), "
        f"{literal(f'{table}.{column}')}, {quoted(at)}::TIMESTAMPTZ, {quoted(at)}::TIMESTAMPTZ, NULL FROM raw_{source}.{quoted(name)} "
        f"WHERE {quoted(column)} IS NOT NULL AND {quoted(key)} IS NOT NULL GROUP BY {quoted(key)}, {quoted(at)}"
    )
