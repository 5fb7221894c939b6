"""`warehouse`: every verb, its help, and what its exit code means. Rooms are imported when their verb is called."""

import gc
import os
import sys
import time
from pathlib import Path

import click

from cli.backup import backup
from cli.privacy import privacy
from cli.restore import drill, restore
from cli.serve import serve

EXIT_CODES = """\b
Exit code: 0 all that was asked succeeded, 1 checks found something,
2 a setting, declaration or argument is wrong, 3 a step failed."""


class _Verbs(click.Group):
    """Verbs in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Verbs, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="startup-warehouse", prog_name="warehouse")
def cli() -> None:
    """The company's warehouse: load the sources, build the marts, check them, publish them.

    `warehouse run` does all of it in order; each step is also a verb of its own and can be repeated at any time. Settings
    come from the environment or from `.env` (`.env.example` lists them); everything local is kept in WAREHOUSE_HOME.
    """


@cli.command(short_help="Load, transform, check and publish.")
@click.option("--due", is_flag=True, help="Load only the sources whose schedule asks for it now, for use by a scheduler.")
@click.option("--follow", is_flag=True, help="Go on: run whenever webhooks have brought something or a source is due.")
def run(due: bool, follow: bool) -> None:
    """Load, transform, check and publish, in this order, under the lease.

    A step that fails stops the run: what readers see stays as it was, and the next run goes on from there. Findings of
    the checks stop the publication of wrong data and end with exit code 1. With --follow errors are recorded and tried
    again, and it ends, between two steps, when it is told to by SIGTERM or Ctrl+C.
    """
    if follow:
        from cli.follow import follow_changes

        follow_changes()
        return
    from cli.run import run_everything

    run_everything(only_due=due)


@cli.command(short_help="Load one source into raw_<source>.")
@click.argument("source")
def load(source: str) -> None:
    """Load one SOURCE (a module of pipelines/, for example `postgres`) into raw_<SOURCE>.

    The first load reads whole tables, later ones read what changed. Personal data is pseudonymised before anything is
    written. Every loaded package is kept in the landing zone.
    """
    from cli.run import load_one

    load_one(source)


@cli.command(short_help="Make raw tables anew from the landing zone.")
@click.argument("source")
def rebuild(source: str) -> None:
    """Make the raw tables of a SOURCE anew from the landing zone alone, without asking the source."""
    from cli.run import rebuild_one

    rebuild_one(source)


@cli.command(short_help="Plan and build the models.")
@click.option("--restate", multiple=True, metavar="MODEL", help="Build this model anew from its input, with all that depends on it; may be repeated.")
def transform(restate: tuple[str, ...]) -> None:
    """Plan and build the models of models/: staging views and marts, each audited. Shows seconds and audits per model."""
    from cli.run import transform_all

    transform_all(restate)


@cli.command(short_help="Check contracts and freshness.")
@click.argument("what", required=False, type=click.Choice(["freshness"]))
@click.option("--json", "as_json", is_flag=True, help="One finding a line, as JSON, on standard output.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write every check and finding as JUnit's XML.")
@click.option("--alert", is_flag=True, help="Also tell whom monitoring/rules.yaml names, as `warehouse run` does.")
def check(what: str | None, as_json: bool, junit: Path | None, alert: bool) -> None:
    """Check every contract of soda/ and the freshness of every source. Exit code 1 when something is found.

    With `freshness` nothing but the age of the loads is looked at, which needs neither the lease nor a source: for a second
    place, that notices when the first one no longer runs at all.
    """
    if what == "freshness":
        from cli.check import check_freshness

        check_freshness(as_json=as_json, junit=junit, alert=alert)
        return
    from cli.run import check_all

    check_all(as_json=as_json, junit=junit, alert=alert)


@cli.command(short_help="Tell people what is wrong.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would go where, and what waits.")
@click.option("--acknowledge", metavar="INCIDENT", help="Note that somebody deals with this incident, so that it is not escalated.")
def alert(dry_run: bool, acknowledge: str | None) -> None:
    """Send the alerts that wait, and tell of incidents that began or ended, as `warehouse run` does when it ends.

    What goes where stands in monitoring/rules.yaml; the channels are set up in the environment (docs/how-to/alerts.md).
    """
    from cli.alert import alert as tell

    tell(dry_run=dry_run, acknowledge=acknowledge)


@cli.command(short_help="Compare raw tables with their source.")
@click.argument("source", required=False)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--json", "as_json", is_flag=True, help="One table a line, as JSON, on standard output.")
def compare(source: str | None, tables: tuple[str, ...], as_json: bool) -> None:
    """Compare the raw tables of a SOURCE (all, or those named) with the source as it is now, by rows and content hashes.

    Without SOURCE every configured one that can be compared. Rows changed since the last load are left out and counted. Where
    something differs, the first keys are named with the columns that differ, never values; each such table is a finding that
    people are told of. Exit code 1 when something differs.
    """
    from cli.compare import compare_sources

    compare_sources(source, tables, as_json=as_json)


@cli.command(short_help="What a change would do to production.")
@click.option("--environment", metavar="NAME", help="Where to build the change; default: pr_<number> on GitHub, else branch_<branch>.")
@click.option("--max-megabytes", default=10_000, show_default=True, type=click.IntRange(1), help="Tables beside production may take this; older reviews go.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON instead of Markdown.")
@click.option("--comment", is_flag=True, help="Also post it as one comment of GitHub's pull request, or renew that comment.")
def review(environment: str | None, max_megabytes: int, as_json: bool, comment: bool) -> None:
    """Build the models of this checkout beside production, test them, and tell what is different, as Markdown.

    Only what changed is built, in an environment of its own; production and its published copy stay as they are. Told are
    each changed mart with its rows and columns, headline metrics before and after, and what would fail: exit code 1.
    """
    from cli.review import review as look

    look(environment, megabytes=max_megabytes, as_json=as_json, comment=comment)


@cli.command(short_help="Build production from a pull request, then merge it.")
@click.option("--max-megabytes", default=10_000, show_default=True, type=click.IntRange(1), help="As for `warehouse review`, which runs first.")
def deploy(max_megabytes: int) -> None:
    """What the label `deploy` on a pull request asks for, run by GitHub (.github/workflows/deploy.yml).

    The pull request must be open, of this repository, up to date with the main branch and free to merge, and who set the label
    must be allowed to merge. It is reviewed once more; production is built from it, checked and published; then exactly the
    commit that was built is merged.
    """
    from cli.deploy import deploy as do

    do(megabytes=max_megabytes)


@cli.command(short_help="Publish the marts as a read copy.")
def publish() -> None:
    """Publish the marts as a read copy that Metabase and any DuckDB client open while the next run writes."""
    from cli.run import publish_all

    publish_all()


cli.add_command(serve)
cli.add_command(backup)
cli.add_command(restore)
cli.add_command(drill)
cli.add_command(privacy)


@cli.command(short_help="What ran, how fresh, where to read.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many of the last runs to show.")
def status(as_json: bool, runs: int) -> None:
    """What ran last, how it ended, how fresh each source is, and where to read. Works while a run is writing."""
    from cli.status import show

    show(runs, as_json=as_json)


@cli.command(short_help="The warehouse's health as one page.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file to write; default: report.html in WAREHOUSE_HOME.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, on standard output unless a file is named.")
def report(output: Path | None, as_json: bool) -> None:
    """Write what is known of the warehouse's health as one HTML page to read anywhere, also without a network.

    Is everything well, and since when; freshness, incidents with their cause and page, numbers beside what is expected of them,
    runs, contracts, lineage, backups, definitions. Only the ledger and the published copy are read: it works while a run is writing.
    """
    from cli.report import write

    write(output, as_json=as_json)


@cli.command(short_help="Ask the published marts one question.")
@click.argument("sql")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="How many rows to show at the most.")
def query(sql: str, limit: int) -> None:
    """Ask the published marts one question, for example "SELECT * FROM marts.daily_revenue ORDER BY date DESC"."""
    from cli.tables import show
    from serving.query import query as ask

    columns, rows = ask(sql, limit=limit)
    show("result", columns, rows)


@cli.command(short_help="What each table and column means.")
@click.option("--format", "form", default="markdown", show_default=True, type=click.Choice(["markdown", "html", "json"]), help="What to write.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; standard output unless given.")
def catalogue(form: str, out: Path | None) -> None:
    """Write what each table and column means: type, personal data, owner, contract, and what it is computed from.

    Made from models/, soda/ and privacy/policy.yaml alone: neither a warehouse nor a secret is needed. `html` is one file
    to search and read in a browser, also from disk; `markdown` is docs/dictionary.md.
    """
    from cli.catalogue import write

    write(form, out)


@cli.command(short_help="What is wrong and how to mend it.")
def doctor() -> None:
    """Look at settings, declared files, connections, versions and disk; say what is wrong and how to mend it."""
    from cli.doctor import examine

    examine()


def main() -> None:
    """Run the command line; errors go to standard error with their mend, and set the exit code."""
    os.environ["TZ"] = "UTC"  # every library's idea of local time is UTC too
    time.tzset()
    # SQLMesh and Soda make millions of small objects that live until the end: looking through them every 700 takes a fifth of a run.
    gc.set_threshold(50_000, 20, 50)
    from warehouse.errors import WarehouseError

    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except WarehouseError as error:
        from warehouse.console import complain

        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # a traceback could show what must not be shown; the log has the place, scrubbed
        from warehouse.console import complain, logger
        from warehouse.errors import mend_of

        logger.exception("unexpected")
        mend = mend_of(str(error), "run again; if it stays, WAREHOUSE_HOME/logs says where it happened")
        complain(f"error: {type(error).__name__}: {error}\n  mend: {mend}")
        sys.exit(3)
    finally:
        if telemetry := sys.modules.get("warehouse.telemetry"):  # nothing was traced by what did not import it
            telemetry.finish()
