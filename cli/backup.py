"""`warehouse backup`: what is kept elsewhere. The work is imported when a verb is called."""

import click

_STORES = click.Choice(["a", "b", "c"])
_WHAT = click.Choice(["warehouse", "export", "postgres", "postgres_base", "archive", "deep_archive", "vault"])


@click.group(short_help="Keep copies in two more places.")
def backup() -> None:
    """Keep sealed copies in two stores or three, read each of them back, and delete only what a newer one makes superfluous.

    What is kept, how long and where stands in backup/policy.yaml; docs/how-to/back-up.md begins with an empty account.
    """


@backup.command(short_help="Due, kept, locked, expiring, and what it costs.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def plan(as_json: bool) -> None:
    """What is due, kept, locked and expiring in each store, what that costs a month by storage class, and whether the rule of three holds.

    Exit code 1 when there are fewer than three copies, two media or one off site, counted by what the stores really hold.
    """
    from cli.archive_work import show_plan

    show_plan(as_json=as_json)


@backup.command(short_help="Take a backup.")
@click.argument("what", type=_WHAT, required=False)
@click.option("--due", is_flag=True, help="Only when the policy asks for it now, by what the stores hold; for use by a scheduler.")
@click.option("--wait", default=1800, show_default=True, type=click.IntRange(0), metavar="SECONDS", help="How long to wait for a run that is writing.")
@click.option("--whole", is_flag=True, help="Upload everything anew: when `warehouse backup verify` found older objects damaged.")
def run(what: str | None, due: bool, wait: int, whole: bool) -> None:
    """Take a backup of WHAT (all that the policy keeps unless given): seal, upload, read back, manifest last.

    The home is copied aside while nobody writes; production is streamed from pg_dump.

    What the stores hold already is not uploaded again; a backup that was cut off goes on where it was. Exit code 3 when a
    store lacks it at the end: the other has it, and the next backup brings it there. An archive is locked for years.
    """
    from cli.backup_work import take

    take(what, due=due, wait=wait, whole=whole)


@backup.command("list", short_help="Which backups there are.")
@click.option("--json", "as_json", is_flag=True, help="One backup a line, as JSON, on standard output.")
def list_(as_json: bool) -> None:
    """Which backups there are, in which store, of when, with how many files, bytes, tables and rows."""
    from cli.backup_work import show_list

    show_list(as_json=as_json)


@backup.command(short_help="Read backups back whole.")
@click.argument("what", type=_WHAT, required=False)
@click.option("--all", "everything", is_flag=True, help="All backups, of archives only where they are named; else the newest of each store.")
@click.option("--store", type=_STORES, help="One store only.")
def verify(what: str | None, everything: bool, store: str | None) -> None:
    """Read backups of WHAT (all unless given) back whole and compare every byte with what was written. Needs no private key.

    It also finds what somebody has hidden behind delete markers or covered. Exit code 1 when something is wrong.
    """
    from cli.backup_work import check

    check(what, everything=everything, only=[store] if store else [])


@backup.command(short_help="Bring back what was hidden.")
@click.argument("what", type=_WHAT, required=False)
def uncover(what: str | None) -> None:
    """Take away the delete markers and other bytes that somebody put over backups of WHAT (all unless given): the first version of each object stays."""
    from cli.backup_work import bring_back

    bring_back(what)


@backup.command(short_help="Receive production's log as it is written.")
def receive() -> None:
    """Receive the write-ahead log of a PostgreSQL server of your own, until SIGTERM or Ctrl+C.

    Each segment goes sealed into both stores when it is complete, and the one being written every minute. With
    `warehouse backup run postgres_base` daily, `warehouse restore postgres --to` goes back to any second.
    """
    from backup.postgres_log import receive as receive_log
    from warehouse.console import log_to_file

    log_to_file()
    receive_log()


@backup.command(short_help="Make the buckets ready.")
def setup() -> None:
    """Make the buckets of the stores where they are missing, and give them versions, Object Lock and one lifecycle rule.

    What is so already stays; rules of others that would move or delete backups are refused. It needs a key that may change buckets; backups do not.
    """
    from cli.backup_work import set_up

    set_up()
