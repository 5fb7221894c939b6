"""`warehouse status`: what ran, how fresh the sources are, where to read. Never needs the warehouse file itself."""

import json
from datetime import datetime
from typing import Any

from cli import tables
from pipelines.source import common, sources
from warehouse import clock, ledger
from warehouse.console import say
from warehouse.lease import is_free
from warehouse.settings import settings


def show(runs: int, *, as_json: bool) -> None:
    """Show the last runs with their steps, and the freshness of each source."""
    recent = ledger.recent_runs(runs)
    freshness = [_freshness(source) for source in sources()]
    read_copy = settings().published / "warehouse.duckdb"
    writing = not is_free()
    kept = [one for step in ("backup", "verify", "drill") for one in ledger.last_steps(step)]
    if as_json:
        content = {"runs": recent, "sources": freshness, "read_copy": str(read_copy) if read_copy.exists() else None, "writing_now": writing, "backups": kept}
        say(json.dumps(content, default=str, indent=2))
        return
    if not recent:
        say(f"Nothing has run yet in {settings().home}. `warehouse run` begins; `make demo` shows it on a small company.")
        return
    tables.show("runs", ("started (UTC)", "command", "status", "seconds", "error"), [_run_row(run, writing) for run in recent])
    newest = recent[0]
    rows = [(_name(step), step["status"], step["rows_in"], step["rows_out"], _seconds(step["seconds"]), _first_line(step["error"])) for step in newest["steps"]]
    tables.show(f"steps of the last run ({newest['command']})", ("step", "status", "rows in", "rows out", "seconds", "error"), rows)
    tables.show("sources", ("source", "schedule", "last load (UTC)", "age", "freshness"), [_source_row(one) for one in freshness])
    if kept:
        tables.show("backups", ("step", "ended (UTC)", "status", "seconds", "what", "error"), [_kept_row(one) for one in kept])
    say(f"read copy: {read_copy}" if read_copy.exists() else "read copy: not published yet")
    if settings().is_demo:
        say("source: the demo company (`make demo-stop` stops it)")


def _freshness(source: str) -> dict[str, Any]:
    declared = common(source)
    last = ledger.last_success("load", source)
    age = clock.now() - last if last else None
    return {
        "source": source, "schedule": declared.schedule, "loaded_at": last.isoformat(timespec="seconds") if last else None,
        "age": str(age).split(".")[0] if age is not None else None, "limit": str(declared.freshness),
        "is_fresh": age is not None and age <= declared.freshness,
    }  # fmt: skip


def _run_row(run: dict[str, Any], writing: bool) -> tuple[Any, ...]:
    status = run["status"]
    if status == "running" and not writing:
        status = "interrupted"  # its process is gone; the next run will write it so
    return _minute(run["started_at"]), run["command"], status, _seconds(run["seconds"]), _first_line(run["error"])


def _source_row(one: dict[str, Any]) -> tuple[Any, ...]:
    if not settings().is_configured(one["source"]) and not one["loaded_at"]:
        return one["source"], one["schedule"], "never", "", "not configured"
    verdict = "fresh" if one["is_fresh"] else f"older than {one['limit']}"
    return one["source"], one["schedule"], one["loaded_at"] or "never", one["age"] or "", verdict


def _kept_row(step: dict[str, Any]) -> tuple[Any, ...]:
    detail = json.loads(step["detail"]) if step["detail"] else {}
    said = {"backup": "{backup}", "verify": "{objects} objects of {backups} backups", "drill": "{backup}, restored in {seconds:.1f} s"}[step["step"]]
    told = said.format(**detail) if "why" not in detail and detail else detail.get("why", "")
    return _name(step), _minute(step["ended_at"]), step["status"], _seconds(step["seconds"]), told, _first_line(step["error"])


def _name(step: dict[str, Any]) -> str:
    return f"{step['step']} {step['item']}".strip()


def _minute(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(value: float | None) -> float | None:
    return round(value, 2) if value is not None else None


def _first_line(text: str | None) -> str:
    return (text or "").split("\n")[0]
