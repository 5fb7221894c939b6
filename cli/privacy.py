"""`warehouse privacy`: erase persons and prove it, give them what is held of them. Rooms are imported when their verb is called."""

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from privacy.subjects import Subject
    from warehouse.ledger import Run


@click.group(short_help="Erase and export persons; verify what is recorded.")
def privacy() -> None:
    """What a person may ask for, and the records that prove what was done."""


@privacy.command(short_help="Erase persons everywhere.")
@click.option("--subject", "subjects", multiple=True, metavar="KIND:KEY", help="user:42, email:…, stripe:cus_… or zendesk:…; may be repeated.")
@click.option("--subjects-from", type=click.File("r"), metavar="FILE", help="The same, one a line; `-` reads standard input, which no process list shows.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and change nothing.")
def erase(subjects: tuple[str, ...], subjects_from: TextIO | None, dry_run: bool) -> None:
    """Erase persons everywhere: raw tables, landing zone, built tables and histories, published copies, spool, free pages.

    A person is found in every source by what sources declare and by the email. Facts that accounting must keep stay, without
    the person. No later load brings the person back. Prints a sealed certificate: what changed where, and what remains until
    when. Killed at any moment, the same command goes on.
    """
    from cli.run import recorded
    from privacy.erase import erase as really
    from privacy.erase import plan
    from warehouse.console import say
    from warehouse.lease import lease

    named = _named(subjects, subjects_from)
    if dry_run:
        with lease("privacy erase --dry-run"):
            say(plan(named).as_json())
        return
    with recorded("privacy erase") as run:
        say(really(named, run, lambda models: _build_anew(run, models)).as_json())


@privacy.command(short_help="Remove what is older than it is kept.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and change nothing.")
def retain(dry_run: bool) -> None:
    """Remove rows that are older than `retention` in privacy/policy.yaml keeps them, by their own time; no load brings them back.

    They go from raw tables, the landing zone, what is built of them, the published copy and free pages.
    """
    from cli import tables
    from cli.run import recorded
    from privacy.retention import retain as remove

    with recorded("privacy retain --dry-run" if dry_run else "privacy retain") as run:
        done = remove(run, lambda models: _build_anew(run, models), dry_run=dry_run)
    rows = [(name, done.before.get(name.removeprefix("raw_"), ""), count) for name, count in done.raw.items()]
    rows += [(f"landing/{name}", "", count) for name, count in done.landing.items()]
    tables.show("would go" if dry_run else "removed", ("where", "older than", "rows"), rows)


@privacy.command(short_help="Write all that is held of persons.")
@click.option("--subject", "subjects", multiple=True, metavar="KIND:KEY", help="user:42, email:…, stripe:cus_… or zendesk:…; may be repeated.")
@click.option("--subjects-from", type=click.File("r"), metavar="FILE", help="The same, one a line; `-` reads standard input, which no process list shows.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder, outside of WAREHOUSE_HOME.")
def export(subjects: tuple[str, ...], subjects_from: TextIO | None, out: Path) -> None:
    """Write all that is held of persons to a folder: JSON with what everything means and where it came from, and a CSV a table."""
    from cli import tables
    from privacy.export import export as write
    from transform.raw_tables import external_models
    from warehouse.lease import lease

    with lease("privacy export"):
        written = write(_named(subjects, subjects_from), out, {name: model.description for name, model in external_models().items()})
    tables.show(f"held: {out}", ("table", "rows"), list(written.items()))


@privacy.command(short_help="Read what is sealed of persons.")
@click.option("--subject", "subjects", multiple=True, metavar="KIND:KEY", help="user:42, email:…, stripe:cus_… or zendesk:…; may be repeated.")
@click.option("--subjects-from", type=click.File("r"), metavar="FILE", help="The same, one a line; `-` reads standard input, which no process list shows.")
@click.option("--purpose", required=True, help="Why it is read; the audit trail keeps it.")
def reveal(subjects: tuple[str, ...], subjects_from: TextIO | None, purpose: str) -> None:
    """Read the columns that the policy declares `encrypt`, of persons. Needs PRIVACY__VAULT_KEY, and to be named under `vault`.

    Prints JSON. Each reading is noted in the audit trail: who, of whom, why.
    """
    import json

    from privacy.reveal import reveal as read
    from warehouse.console import say
    from warehouse.lease import lease

    with lease("privacy reveal"):
        say(json.dumps(read(_named(subjects, subjects_from), purpose), indent=2, default=str, ensure_ascii=False))


@privacy.command("back-up-vault", short_help="Copy the keys of the vault elsewhere.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def back_up_vault(folder: Path) -> None:
    """Write a copy of the vault's keys, wrapped as they are, to a folder elsewhere; remove the copies there that are too old.

    Backups of the warehouse leave the vault out, since a key must not outlive the erasure of its person there.
    """
    from privacy.vault_keys import back_up
    from warehouse.console import say

    say(str(back_up(folder)))


@privacy.command("rotate-key", short_help="Change the key of the pseudonyms.")
def rotate_key() -> None:
    """Hash all pseudonyms that are held once more, with a new key, and know everybody by them from now on.

    Set PRIVACY__HMAC_KEYS_BEFORE to the old key (`{"k1": "…"}`), PRIVACY__HMAC_KEY and PRIVACY__HMAC_KEY_ID to the new one; every
    load refuses to run until this has ended. Killed at any moment, the same command goes on.
    """
    from cli import tables
    from cli.run import recorded
    from privacy.rotate import rotate
    from serving.publish import publish
    from warehouse.console import say

    with recorded("privacy rotate-key") as run:
        done = rotate(run, publish)
    tables.show("hashed again", ("where", "rows"), list(done.places.items()))
    say(f"in force: {', '.join(done.keys)}")
    if done.without_emails:
        say(f"{done.without_emails} erasures were noted before emails were kept for this: their persons are kept out by all their other keys")


@privacy.command(short_help="Write the record of processing.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; standard output unless given.")
def record(out: Path | None) -> None:
    """Write the record of processing, docs/privacy.md: what is personal, why it is held, what becomes of it. Needs no warehouse."""
    from privacy.record import document
    from warehouse.console import say
    from warehouse.files import write_atomically

    if out:
        write_atomically(out, document())
    else:
        say(document().rstrip("\n"))


@privacy.command(short_help="Verify the audit trail and the ledger of erasures.")
@click.option("--certificate", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Also verify that this certificate is genuine.")
def verify(certificate: Path | None) -> None:
    """Verify that nothing was edited, taken out or cut off: the audit trail, the ledger of erasures. Exit code 1 otherwise."""
    from privacy.audit import problems, trail
    from privacy.erase import is_genuine
    from privacy.erasures import ledger
    from warehouse.console import say
    from warehouse.errors import FindingsFound

    found = problems()
    if certificate is not None and not is_genuine(certificate.read_text()):
        found.append(f"{certificate.name}: not made by this warehouse, or edited")
    if found:
        raise FindingsFound("\n".join(found), mend="docs/runbooks/erasure.md says what each means and what to do")
    for chain in (trail(), ledger()):
        lines, seal = chain.head()
        say(f"{chain.path.name}: {lines} lines, head {seal}")


def _build_anew(run: "Run", models: list[str]) -> None:
    from serving.publish import publish
    from transform.build import build

    with run.step("transform"):
        build(models)
    with run.step("publish"):
        publish()


def _named(subjects: tuple[str, ...], listed: TextIO | None) -> "list[Subject]":
    from privacy.subjects import parse
    from warehouse.errors import UsageError

    texts = [*subjects, *(line.strip() for line in listed or () if line.strip())]
    if not texts:
        raise UsageError("nobody is named.", mend="`--subject user:42`, or `--subjects-from FILE`")
    return [parse(text) for text in texts]
