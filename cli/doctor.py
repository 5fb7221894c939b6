"""`warehouse doctor`: every part of the house looked at once; each problem with its mend."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from cli import tables
from cli.demo_company import start_if_needed
from warehouse.errors import StepFailed, UsageError, WarehouseError, scrub
from warehouse.settings import settings


@dataclass
class _Result:
    what: str
    is_well: bool
    said: str
    exit_code: int = 0


def examine() -> None:
    """Examine everything, show all results, and fail when one of them is bad.

    Raises:
        WarehouseError: with the highest exit code of what was found.
    """
    results = [
        _look(what, at)
        for what, at in (
            ("settings", _settings), ("home", _home), ("versions", _versions), ("declared files", _declarations), ("privacy key", _privacy_key),
            ("PostgreSQL", _postgres), ("Stripe", _stripe), ("webhooks", _webhooks), ("Google Analytics", _google_analytics), ("Zendesk", _zendesk),
            ("warehouse", _warehouse), ("landing zone", _landing), ("models", _models), ("contracts", _contracts), ("backups", _backups), ("alerts", _alerts),
            ("seeing", _seeing),
        )
    ]  # fmt: skip
    tables.show("doctor", ("part", "is", "says"), [(one.what, "well" if one.is_well else "WRONG", one.said) for one in results])
    wrong = [one for one in results if not one.is_well]
    if wrong:
        raise _Unwell(f"{len(wrong)} of {len(results)} parts are not well: {', '.join(one.what for one in wrong)}", max(one.exit_code for one in wrong))


class _Unwell(WarehouseError):
    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what, mend="each line above says how")
        self.exit_code = exit_code


def _look(what: str, at: Callable[[], str]) -> _Result:
    try:
        return _Result(what, True, at())
    except WarehouseError as error:
        return _Result(what, False, scrub(str(error)), error.exit_code)
    except Exception as error:  # a doctor that dies on the first illness is of no use
        return _Result(what, False, scrub(f"{type(error).__name__}: {error}".splitlines()[0]), 3)


def _settings() -> str:
    now = settings()
    return f"storage {now.storage}, {now.memory_limit} and {now.threads} threads for DuckDB" + (f", clock set to {now.now}" if now.now else "")


def _home() -> str:
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    probe = home / ".doctor"
    probe.write_text("")
    probe.unlink()
    free = shutil.disk_usage(home).free
    if free < 1_000_000_000:
        raise StepFailed(f"{home} has only {free // 1_000_000} MB free.", mend="free some space or move WAREHOUSE_HOME")
    return f"{home}, {free // 1_000_000_000} GB free"


def _versions() -> str:
    from importlib.metadata import version

    import duckdb

    for extension in ("icu", "postgres-scanner"):
        if version(f"duckdb-extension-{extension}") != duckdb.__version__:
            raise StepFailed(f"the extension {extension} is not for DuckDB {duckdb.__version__}.", mend="`make setup` installs what requirements.lock says")
    return ", ".join(f"{package} {version(package)}" for package in ("duckdb", "dlt", "sqlmesh", "soda-core"))


def _declarations() -> str:
    import importlib

    from pipelines.source import sources
    from privacy.policy import policy
    from transform.headline import headline_metrics

    for source in sources():
        importlib.import_module(f"pipelines.{source}").declaration()
    policy()
    headline_metrics()
    return f"sources {', '.join(sources())}; privacy/policy.yaml; models/headline_metrics.yaml"


def _privacy_key() -> str:
    from privacy import key_state, keys, vault_keys
    from warehouse import storage
    from warehouse.lease import is_free

    settings().hmac_key()
    said = f"set, id {' after '.join(reversed(keys.ring_ids()))}"
    if storage.exists() and is_free():
        with storage.open_warehouse(read_only=settings().storage == "duckdb") as connection:
            held = key_state.noted(connection)
            if held is not None and not key_state.is_current(connection):
                raise key_state.different(held)
    if not vault_keys.file().exists():
        return f"{said}; no vault"
    return f"{said}; {vault_keys.check()} keys in the vault"


def _postgres() -> str:
    from pipelines.postgres import check_connection

    start_if_needed()
    return check_connection()


def _stripe() -> str:
    from pipelines.stripe import check_connection

    return check_connection() if settings().is_configured("stripe") else "not configured; SOURCES__STRIPE__STRIPE_SECRET_KEY is not set"


def _webhooks() -> str:
    from pipelines.source import common, sources
    from warehouse import clock, spool

    said = []
    for source in (one for one in sources() if spool.is_used(one)):
        waiting = list(spool.segments(source))
        since = min((one.began_at for one in waiting), default=clock.now())
        age = clock.now() - since
        if age > common(source).freshness:
            raise StepFailed(f"what webhooks of {source} brought waits since {since:%Y-%m-%d %H:%M}.", mend=f"`warehouse load {source}`")
        if damaged := spool.put_aside_files(source):
            raise StepFailed(f"{damaged} files of the spool of {source} had damaged lines.", mend="docs/runbooks/webhooks.md says what to do")
        said.append(f"{source}: {sum(one.bytes for one in waiting)} bytes wait" if waiting else f"{source}: nothing waits")
    return "; ".join(said) or "none are received on this machine"


def _google_analytics() -> str:
    from pipelines.google_analytics import check_connection

    if not settings().is_configured("google_analytics"):
        return "not configured; SOURCES__GOOGLE_ANALYTICS__PROPERTY_IDS and …__CREDENTIALS are not both set"
    return check_connection()


def _zendesk() -> str:
    from pipelines.zendesk import check_connection

    return check_connection() if settings().is_configured("zendesk") else "not configured; SOURCES__ZENDESK__CLIENT_ID is not set"


def _warehouse() -> str:
    from warehouse import storage
    from warehouse.lease import is_free

    if not is_free():
        return "another process is writing it now"
    if not storage.exists():
        return "not made yet; `warehouse run` makes it"
    with storage.open_warehouse(read_only=settings().storage == "duckdb") as connection:
        row = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name LIKE 'raw\\_%' ESCAPE '\\'").fetchone()
        return f"opens; {row[0] if row else 0} raw tables"


def _landing() -> str:
    from pipelines import landing
    from pipelines.source import sources

    packages = [package for source in sources() for package in landing.packages(source)]
    for package in packages[-50:]:
        landing.verify(package)
    unmarked = sum(not package.is_loaded for package in packages)
    return f"{len(packages)} packages, the newest {min(50, len(packages))} verified" + (f", {unmarked} to be settled by the next load" if unmarked else "")


def _models() -> str:
    from transform.build import open_context

    with open_context() as context:
        return f"{len(context.models)} models read"


def _contracts() -> str:
    from monitoring.contract_files import read_contracts

    return f"{len(read_contracts())} contracts read"


def _backups() -> str:
    from backup.encryption import recipients
    from backup.policy import configured, is_configured
    from backup.store import stores

    if not is_configured():
        return "not configured: no copy of this warehouse exists elsewhere; docs/how-to/back-up.md"
    recipients(configured().recipients)
    return "; ".join(f"store {name}: {len(store.held(''))} objects" for name, store in stores().items())


def _alerts() -> str:
    from monitoring.rules import read_rules

    alerts, rules = settings().alerts, read_rules()
    said = [f"{len(rules.rules)} rules"]
    for channel in rules.takes_over:
        lacks = alerts.lacks(channel)
        said.append(f"{channel} is configured" if not lacks else f"{channel} is not configured ({', '.join(lacks)} not set)")
    heartbeat = alerts.heartbeat_url
    said.append("a heartbeat is sent" if heartbeat and heartbeat.get_secret_value() else "no heartbeat (ALERTS__HEARTBEAT_URL is not set)")
    return "; ".join(said)


def _seeing() -> str:
    import os

    from warehouse import telemetry

    file, said = settings().metrics_file, []
    if file is not None and not os.access(file.parent, os.W_OK):
        raise StepFailed(f"WAREHOUSE_METRICS_FILE: {file.parent} is no folder that this user may write to.", mend="make it, or give it to this user's group")
    said.append(f"metrics are written to {file}" if file is not None else "no file for node_exporter (WAREHOUSE_METRICS_FILE is not set)")
    sent = [signal for signal in telemetry.SIGNALS if telemetry.is_on(signal)]
    if not sent and telemetry.is_asked_for():
        raise UsageError("an OTLP endpoint is set, and nothing is sent.", mend="OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf; look for OTEL_SDK_DISABLED")
    said.append(f"OpenTelemetry: {' and '.join(sent)} are sent" if sent else "OpenTelemetry is off")
    return "; ".join(said)
