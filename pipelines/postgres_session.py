"""Sessions of our own with the source's server, beside DuckDB's: what only a driver can do."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipelines.postgres_server import FORMATS, SOURCE, explained, parameters
from warehouse.errors import StepFailed
from warehouse.settings import settings

if TYPE_CHECKING:
    from psycopg2.extensions import cursor
    from psycopg2.extras import LogicalReplicationConnection

# A reader that writes a chunk is silent for a while and must not be cut off; that the peer is gone, TCP notices.
_PATIENT = "-c wal_sender_timeout=0 -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6"


@contextmanager
def session(statement_timeout: timedelta, doing: str) -> Iterator["cursor"]:
    """A read-only session whose statements each stand for themselves.

    Raises:
        StepFailed: the server cannot be reached or refuses, while `doing`.
    """
    import psycopg2

    options = f"-c statement_timeout={int(statement_timeout.total_seconds() * 1000)} -c default_transaction_read_only=on"
    with refusals(doing), closing(psycopg2.connect(**_arguments(options))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


@contextmanager
def replication(doing: str) -> Iterator["LogicalReplicationConnection"]:
    """A session that can stream the log.

    Raises:
        StepFailed: as in `session`.
    """
    import psycopg2
    from psycopg2.extras import LogicalReplicationConnection

    with refusals(doing), closing(psycopg2.connect(**_arguments(_PATIENT), connection_factory=LogicalReplicationConnection)) as connection:
        yield connection


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Turn what the driver raises into errors that say what to do; no values of rows are in them."""
    import psycopg2

    try:
        yield
    except psycopg2.Error as error:
        raise _explained(error, doing) from None


def _arguments(options: str) -> dict[str, Any]:
    given, password = parameters(settings().postgres_credentials())
    given.setdefault("connect_timeout", "10")
    given.setdefault("keepalives_idle", "60")
    if "," in given.get("host", ""):
        given["target_session_attrs"] = "primary"  # slots and publications are there
    given["options"] = f"{given.get('options', '')} {options} {FORMATS}".strip()
    given["application_name"] = "warehouse"
    given["client_encoding"] = "UTF8"
    return {**given, "password": password} if password is not None else dict(given)


def _explained(error: Exception, doing: str) -> StepFailed:
    low = str(error).lower()
    if "is active for pid" in low:
        return StepFailed(
            f"{SOURCE}: {doing}: another process is reading the replication slot.",
            mend="wait for it to end; if none should, find it in PostgreSQL by active_pid in pg_replication_slots",
        )
    if "can no longer get changes from replication slot" in low or "can no longer access replication slot" in low:
        return StepFailed(
            f"{SOURCE}: {doing}: PostgreSQL threw away log that was not read yet (max_slot_wal_keep_size), so changes are missing.",
            mend="drop the slot, make it anew and read the tables as a whole",
        )
    if "publication" in low and "does not exist" in low:
        return StepFailed(
            f"{SOURCE}: {doing}: the publication is not there, or was not when the oldest changes that the slot keeps were made.",
            mend="make the publication first, then drop the slot, make it anew and read the tables as a whole",
        )
    if ("permission denied to" in low and "replication" in low) or "must be superuser or replication role" in low:
        return StepFailed(
            f"{SOURCE}: {doing}: the user of SOURCES__POSTGRES__CREDENTIALS may not replicate.", mend="as administrator: ALTER ROLE <the user> REPLICATION;"
        )
    if "max_wal_senders" in low or "all replication slots are in use" in low:
        return StepFailed(
            f"{SOURCE}: {doing}: the server has no room for another replication.",
            mend="as administrator raise max_replication_slots and max_wal_senders and restart PostgreSQL, or drop a slot that nobody reads",
        )
    return explained(error, doing)
