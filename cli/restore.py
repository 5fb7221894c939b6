"""`warehouse restore`: back again, into a fresh place. The work is imported when a verb is called."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

STORES = click.Choice(["a", "b", "c"])


class Instant(click.ParamType[datetime]):
    """An ISO date or time; without a zone it is UTC, and a date alone is its end."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time: write 2026-11-25 or 2026-11-25T03:00:00Z", param, ctx)
        if len(text) == len("2026-11-25"):
            found = found.replace(hour=23, minute=59, second=59)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _into_a_folder(noun: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of a verb that restores files: as of when, into which folder, from which store."""
    options = (
        click.option("--as-of", type=Instant(), help=f"The newest {noun} that shows this instant (UTC) or an earlier one; the newest of all unless given."),
        click.option("--into", required=True, type=click.Path(file_okay=False, path_type=Path), help="A folder that does not exist yet."),
        click.option("--store", type=STORES, help="Use this store alone; both unless given, and whatever is damaged in one is read from the other."),
    )

    def given(verb: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return given


@click.group(short_help="Restore a backup into a fresh place.")
def restore() -> None:
    """Restore a backup into a fresh place, never over one in use. The private key is needed: BACKUP__IDENTITIES."""


@restore.command(short_help="Restore the home of the warehouse.")
@_into_a_folder("backup")
def warehouse(as_of: datetime | None, into: Path, store: str | None) -> None:
    """Restore the warehouse as it was, compare it with what was backed up, and only then let the folder appear.

    Compared are the SHA-256 of every file, the rows and a fingerprint of every table, and the headline metrics. Set
    WAREHOUSE_HOME to the folder to use it; `warehouse publish` makes the read copy again.
    """
    from cli.backup_work import bring_back_files

    bring_back_files("warehouse", as_of, into, store)


@restore.command(short_help="Bring back an export as Parquet files.")
@_into_a_folder("export")
def export(as_of: datetime | None, into: Path, store: str | None) -> None:
    """Bring back an export: one Parquet file a table, `<schema>/<table>.parquet`, which any tool reads."""
    from cli.backup_work import bring_back_files

    bring_back_files("export", as_of, into, store)


@restore.command(short_help="Bring back the keys of the vault.")
@_into_a_folder("copy")
def vault(as_of: datetime | None, into: Path, store: str | None) -> None:
    """Bring back the keys of the vault, without those of persons who were erased since; then set PRIVACY__VAULT to the file."""
    from cli.backup_work import bring_back_files

    bring_back_files("vault", as_of, into, store)


@restore.command(short_help="Restore production.")
@click.option("--as-of", type=Instant(), help="A dump: the newest that shows this instant (UTC) or an earlier one; the newest of all unless given.")
@click.option("--to", type=Instant(), help="Base and log: recover to this instant (UTC); with --into alone, to the last commit that was received.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="Base and log: a folder that does not exist yet.")
@click.option("--received", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Base and log: the receiver's own folder, if it is left.")
@click.option("--store", type=STORES, help="Use this store alone; both unless given, and whatever is damaged in one is read from the other.")
def postgres(as_of: datetime | None, to: datetime | None, into: Path | None, received: Path | None, store: str | None) -> None:
    """Restore the dump of production into a new database, or with --into a server to any second.

    The dump goes into the database that BACKUP__POSTGRES_TARGET names, on a fresh server; it must not exist yet. Rows and a
    fingerprint of every table are compared before the database gets its name. The roles are made, without passwords.

    With --into a base backup and the log after it are prepared in a folder, verified; the server that is started there
    recovers to the instant.
    """
    from cli.backup_work import bring_production, bring_server

    if into is not None:
        bring_server(to, into, store, received)
    elif to is not None or received is not None:
        raise click.UsageError("--to and --received need --into: a folder for the server's data")
    else:
        bring_production(as_of, store)


@restore.command(short_help="Bring back an archive of years ago.")
@click.argument("backup", metavar="ID")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="A folder that does not exist yet.")
@click.option("--store", type=STORES, help="Use this store alone; else the copy that is read at once, before one that must be thawed.")
@click.option("--tier", type=click.Choice(["Expedited", "Standard", "Bulk"]), help="How fast it is thawed; as the policy says unless given.")
@click.option("--days", type=click.IntRange(1, 365), help="For how many days it then lies open; as the policy says unless given.")
@click.option("--wait", is_flag=True, help="Stay until it has thawed.")
@click.option("--dry-run", is_flag=True, help="Say what it costs and how long it takes, and ask for nothing.")
def archive(backup: str, into: Path | None, store: str | None, tier: str | None, days: int | None, wait: bool, dry_run: bool) -> None:
    """Bring back the archive ID (`warehouse backup list`): one Parquet file a table, with a page that explains them.

    One that must be thawed is asked for. Then this waits (--wait), or says when to come back and with which command, with exit
    code 4. Repeated, it goes on where it was: it asks once, and downloads nothing twice.
    """
    from cli.archive_work import bring_archive

    if into is None and not dry_run:
        raise click.UsageError("--into is needed: a folder that does not exist yet")
    bring_archive(backup, into, store, tier, days, wait=wait, dry_run=dry_run)


@restore.command(short_help="Bring back the records of privacy.")
@click.option("--into", type=click.Path(file_okay=False, path_type=Path), help="A folder; where the settings keep them unless given.")
def records(into: Path | None) -> None:
    """Bring the newest copy of the ledger of erasures, the audit trail and the consents back: before anything else is restored.

    Nothing is written over: older records that are there must be moved away first.
    """
    from cli.backup_work import bring_records

    bring_records(into)


@restore.command(short_help="Erase again in a restored production database.")
@click.option("--store", type=STORES, help="Ask this store alone how far the ledger went.")
def erasures(store: str | None) -> None:
    """Erase again, in the database that BACKUP__POSTGRES_TARGET names, everybody who was erased: for a server restored with --into.

    `warehouse restore postgres` of a dump does so by itself. Do it before pg_hba.conf lets anybody else connect.
    """
    from cli.backup_work import erase_in_production

    erase_in_production(store)


@click.command(short_help="Prove that backups can be restored.")
@click.argument("what", type=click.Choice(["warehouse", "export", "postgres", "archive", "deep_archive", "vault"]), required=False)
@click.option("--seed", type=int, help="Of the choice of the earlier backup, to repeat a drill; by chance unless given, and told.")
@click.option("--store", type=STORES, help="Restore from this store alone, as if the other were lost.")
def drill(what: str | None, seed: int | None, store: str | None) -> None:
    """Restore the newest backup and one of the earlier ones of WHAT, compare them, time it, and throw them away.

    WHAT is `warehouse`, `export`, `postgres`, `vault`, `archive` or `deep_archive` (one of those is asked for; called again when it has
    thawed, the drill goes on); unless given, all that the policy keeps, production only where
    BACKUP__POSTGRES_TARGET names a server.

    The result is in ops.drills, in `warehouse status` and in the stores; one that failed or is overdue is a finding of
    `warehouse check`.
    """
    from cli.backup_work import prove

    prove(what, seed, store)
