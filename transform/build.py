"""Bring production up to date: plan what changed in the code, then build what changed in the data."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from transform.inputs import EVERYTHING, Changed, Inputs
from transform.raw_tables import complete, lacking_error
from warehouse import clock, storage
from warehouse import restate as waiting
from warehouse.errors import FindingsFound, StepFailed, UsageError
from warehouse.settings import ROOT, settings

if TYPE_CHECKING:
    from sqlmesh import Context, Model
    from sqlmesh.core.plan import PlanBuilder
    from sqlmesh.core.snapshot import Snapshot, SnapshotTableInfo

    from transform.report import ModelReport, Report

ENVIRONMENT = "prod"


@dataclass(frozen=True)
class Built:
    """What a build did: one report a model, whether the code had changed, and the tables (schema.table) that production is made of."""

    models: list["ModelReport"]
    planned: bool
    tables: frozenset[str] = frozenset()


def build(restate: Sequence[str] = ()) -> Built:
    """Plan and apply changed models, then build every model up to the last loaded row. Hold the lease.

    Args:
        restate: models to build anew from their input, with all that depends on them.

    Raises:
        UsageError: there is no such model.
        StepFailed: a model could not be planned or built; production keeps what it showed before.
        FindingsFound: a blocking audit found wrong data; the models below it keep what they showed before.
    """
    with storage.open_warehouse() as connection:
        raw = complete(connection)
        inputs = Inputs.now(connection, ROOT)
        changed = inputs.changed(connection) if _stands() else EVERYTHING
        restate = [*dict.fromkeys([*restate, *(waiting.waiting(connection) if _stands() else ())])]
        if not changed and not restate:
            return Built(models=[], planned=False)
        inputs.forget(connection, changed)
        erased = waiting.of_reviews(connection)
    try:
        built = _build(restate, raw.never_loaded, changed, erased)
    except StepFailed as error:
        raise lacking_error(error, raw.lacking) if raw.lacking else error from None
    with storage.open_warehouse() as connection:
        inputs.remember(connection)
        waiting.done(connection, built.tables)
    return built


def _stands() -> bool:
    """Whether the state that says what production is made of is where a build left it."""
    return settings().storage == "motherduck" or settings().state_file.exists()


def _build(restate: Sequence[str], never_loaded: Collection[str], changed: Changed, erased: Mapping[str, str]) -> Built:
    """Args: erased: tables (schema.table) that a review built and an erasure took rows out of -> their models."""
    with open_context(reads_models=changed.code or bool(restate)) as context:
        report: Report = context.console
        planned, stale = "nothing", changed.tables
        try:
            if changed.code or restate:
                planned, stale = _plan(context, report, restate, never_loaded, changed.tables)
                shown = _tables(context)
                if facts := sorted({model for table, model in erased.items() if table in shown}):
                    context.apply(_builder(context, facts).build())
            if planned != "everything":
                _run(context, never_loaded, stale)
        except (StepFailed, UsageError):
            raise
        except Exception as error:  # SQLMesh raises many types; all of them mean that the build failed
            raise report.failure(error) from None
        report.raise_if_failed()
        tables = _tables(context)
    return Built(models=report.models(), planned=planned != "nothing", tables=tables)


@contextmanager
def open_context(*, reads_models: bool = True) -> Iterator["Context"]:
    """SQLMesh's context for this project, its messages going to a `Report` as its `console`; closed afterwards.

    Args:
        reads_models: whether the models' files are read; production can be run without, the state keeps its models.

    Raises:
        StepFailed: a model, an audit or config.yaml cannot be read, or the state cannot be reached.
    """
    _environment()
    from sqlmesh import Context
    from sqlmesh.core.config.loader import load_config_from_paths
    from sqlmesh.core.config.root import Config
    from sqlmesh.core.console import set_console

    from transform.report import Report

    report = Report()
    set_console(report)
    os.chdir(ROOT)  # SQLMesh resolves relative paths from the working directory
    context = None
    try:
        # Not Context(paths=...) alone: that would let a `.env` beside config.yaml override the real environment.
        config = load_config_from_paths(Config, project_paths=[ROOT / "config.yaml"])
        context = Context(paths=str(ROOT), config=config, load=reads_models)
        yield context
    except (StepFailed, UsageError, FindingsFound):
        raise
    except Exception as error:  # reading models raises many types too
        raise report.failure(error) from None
    finally:
        if context is not None:
            context.close()


def _environment() -> None:
    """Hand the settings to config.yaml, which can read nothing but environment variables."""
    now = settings()
    if now.storage == "motherduck":
        for name, secret in (("MOTHERDUCK_TOKEN", now.motherduck_token), ("WAREHOUSE_STATE_CREDENTIALS", now.state_credentials)):
            value = secret.get_secret_value() if secret else ""
            if not value or value == "None":  # config.yaml would turn a missing variable into the string 'None'
                raise UsageError(f"{name} is not set, and WAREHOUSE_STORAGE is motherduck.", mend="set it in the environment or in .env")
        _state_database(now.state_credentials.get_secret_value() if now.state_credentials else "")
    os.environ["WAREHOUSE_HOME"] = str(now.home)
    os.environ["WAREHOUSE_STORAGE"] = now.storage
    os.environ["WAREHOUSE_MEMORY_LIMIT"] = now.memory_limit
    os.environ["WAREHOUSE_THREADS"] = str(now.threads)
    os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"
    os.environ["SQLMESH_HOME"] = str(now.home / "sqlmesh")  # read when SQLMesh is first imported; else it writes to the user's own folder
    now.home.mkdir(parents=True, exist_ok=True)
    with storage.open_warehouse():  # puts the icu extension where SQLMesh's own connection will look for it
        pass


def _state_database(url: str) -> None:
    """Take the state database's connection string apart, as config.yaml needs it."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    values = {
        "HOST": parts.hostname, "PORT": parts.port or 5432, "USER": parts.username, "PASSWORD": parts.password,
        "DATABASE": parts.path.lstrip("/"), "SSLMODE": options.get("sslmode", "prefer"),
    }  # fmt: skip
    for name, value in values.items():
        os.environ[f"WAREHOUSE_STATE_{name}"] = unquote(str(value or ""))


def _plan(
    context: "Context", report: "Report", restate: Sequence[str], never_loaded: Collection[str], changed: set[str] | None
) -> tuple[Literal["nothing", "changes", "everything"], set[str] | None]:
    """Apply what changed in the code. Also mends an environment that a killed plan left half promoted.

    Returns: how much was planned, and the tables that have to be built after it as `_run` takes them.
    """
    environment = context.state_reader.get_environment(ENVIRONMENT)
    unknown = [model for model in restate if context.get_model(model) is None]
    if unknown:
        raise UsageError(f"there is no model {unknown[0]!r}.", mend="write it as marts.order_facts; the models are the files under models/")
    if restate:
        context.apply(_builder(context, restate).build())
        return "changes", changed
    if environment is not None and environment.finalized_ts:
        plan = _builder(context).build()
        if not plan.context_diff.has_changes and not plan.requires_backfill:
            return "nothing", changed
        # Audits of a plan compare what is built with what is loaded. So what is built is brought up to date first, by the
        # code that built it; where that code is what is broken, the plan itself says what is still wrong.
        try:
            _run(context, never_loaded, changed)
        except Exception:  # SQLMesh raises many types; whatever it was, the plan comes next
            changed = None
        if report.has_failed:
            changed = None
        report.forget()
    before, until = {snapshot.snapshot_id for snapshot in _production(context)}, built_until(context)
    context.apply(_builder(context).build())
    if environment is None:
        return "everything", None
    # What a review had built is taken over as it was then; what was loaded since is still to come.
    behind = {_table(one) for one in _production(context) if one.is_model and one.snapshot_id not in before and _end(one) < until}
    return "changes", changed if changed is None else changed | behind


def _builder(context: "Context", restate: Sequence[str] = ()) -> "PlanBuilder":
    return context.plan_builder(
        ENVIRONMENT,
        skip_tests=True,
        skip_linter=True,
        execution_time=_execution_time(context),
        include_unmodified=True,
        restate_models=restate or None,
    )


def _run(context: "Context", never_loaded: Collection[str], changed: Collection[str] | None) -> None:
    """Build models from their last state to now, whatever their schedule says.

    Left as they are: what reads only sources never loaded and, where `changed` names the tables that differ from what the last
    build left, what neither is one of these nor reads one.
    """
    at = _execution_time(context)
    snapshots = _production(context)
    models = {snapshot.name: snapshot.model for snapshot in snapshots if snapshot.is_model}
    tables = {snapshot.name: _table(snapshot) for snapshot in snapshots if snapshot.is_model}
    upstream = _upstream(models)
    waiting = {f"raw_{source}" for source in never_loaded}
    wanted = []
    for name, model in models.items():
        raw = {models[one].schema_name for one in upstream[name] if models[one].kind.is_external}
        waits = raw and raw <= waiting
        stays = changed is not None and not {tables[one] for one in (name, *upstream[name])} & set(changed)
        if not model.kind.is_external and not waits and not stays:
            wanted.append(model.name)
    if wanted:  # failures go to the report
        context.run(ENVIRONMENT, end=at, execution_time=at, ignore_cron=True, select_models=wanted, no_auto_upstream=True)


def _production(context: "Context") -> "list[Snapshot]":
    """The models that production is made of, as the state keeps them."""
    environment = context.state_reader.get_environment(ENVIRONMENT)
    return list(context.state_reader.get_snapshots(environment.snapshots).values()) if environment else []


def _upstream(models: "Mapping[str, Model]") -> dict[str, list[str]]:
    """All that a model is made of, directly or not."""
    from sqlmesh.utils.dag import DAG

    dag: DAG[str] = DAG({name: {one for one in model.depends_on if one in models} for name, model in models.items()})
    return {name: dag.upstream(name) for name in models}


def _tables(context: "Context") -> frozenset[str]:
    """The tables that production is made of: asked of the environment alone, for to read every model from the state takes most of a second."""
    environment = context.state_reader.get_environment(ENVIRONMENT)
    return frozenset(_table(one) for one in environment.snapshots if one.is_model) if environment else frozenset()


def _table(snapshot: "Snapshot | SnapshotTableInfo") -> str:
    """Where a model's rows are, as schema.table: a raw table, or what production's version of the model was built into."""
    name = snapshot.name if snapshot.is_external else snapshot.table_name()
    return ".".join(name.replace('"', "").split(".")[-2:])


def _execution_time(context: "Context") -> datetime:
    """The one clock's time, but never earlier than what is already built: SQLMesh counts that as nothing to do."""
    return max(clock.now(), built_until(context) + timedelta(milliseconds=1))


def built_until(context: "Context") -> datetime:
    """The instant up to which production is built."""
    return max((_end(snapshot) for snapshot in _production(context)), default=datetime.fromtimestamp(0, UTC))


def _end(snapshot: "Snapshot") -> datetime:
    """The instant up to which one model is built."""
    return datetime.fromtimestamp(max((end for _, end in snapshot.intervals), default=0) / 1000, UTC)
