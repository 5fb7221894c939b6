"""`warehouse privacy`: erase persons and prove it, give them what is held of them. Rooms are imported when their verb is called."""

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from cli.consent import consent
from warehouse.errors import StepFailed

if TYPE_CHECKING:
    from privacy.subjects import Subject
    from warehouse.ledger import Run


@click.group(short_help="Erase and export persons; verify what is recorded.")
def privacy() -> None:
    """What a person may ask for, and the records that prove what was done."""


privacy.add_command(consent)


@privacy.command(short_help="Erase persons everywhere.")
@click.option("--subject", "subjects", multiple=True, metavar="KIND:KEY", help="user:42, email:…, stripe:cus_… or zendesk:…; may be repeated.")
@click.option("--subjects-from", type=click.File("r"), metavar="FILE", help="The same, one a line; `-` reads standard input, which no process list shows.")
@click.option("--dry-run", is_flag=True, help="Tell what would go, and change nothing.")
@click.option("--wait", default=1800, show_default=True, type=click.IntRange(0), metavar="SECONDS", help="How long to wait for a run that is writing.")
def erase(subjects: tuple[str, ...], subjects_from: TextIO | None, dry_run: bool, wait: int) -> None:
    """Erase persons everywhere: raw tables, landing zone, built tables and histories, published copies, spool, free pages.

    A person is found in every source by what sources declare and by the email. Facts that accounting must keep stay, without
    the person. No later load brings the person back. Prints a sealed certificate: what changed where, and what remains until
    when. Killed at any moment, the same command goes on.
    """
    from backup.plan import remains
    from backup.snapshot import waiting
    from cli.alert import announce_records
    from cli.backup_work import copy_records
    from cli.run import recorded
    from privacy.erase import erase as really
    from privacy.erase import plan
    from warehouse.console import complain, say
    from warehouse.lease import is_free, lease

    named = _named(subjects, subjects_from)
    if dry_run:
        with lease("privacy erase --dry-run"):
            say(plan(named, remains()).as_json())
        return
    if not is_free():
        complain("a run is writing; the erasure begins when it has ended")
    with waiting(wait, "privacy erase"), recorded("privacy erase") as run:
        say(really(named, run, lambda models: _build_anew(run, models), copy_records, remains()).as_json())
        wrong = copy_records()
        announce_records()
        if wrong:
            said = f"the person is erased. But the ledger is not in every store: {'; '.join(wrong)}"
            raise StepFailed(said, mend="`warehouse privacy anchor` brings it there")


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


@privacy.command("rotate-vault-key", short_help="Change the master key of the vault.")
def rotate_vault_key() -> None:
    """Wrap the keys of the vault by a new master key; what is sealed under them stays as it is.

    Set PRIVACY__VAULT_KEY_BEFORE to the key until now, PRIVACY__VAULT_KEY to the new one. Copies of the vault that were made before
    open with the key before alone: keep it as long as they are kept.
    """
    from cli.run import recorded
    from privacy.vault_keys import change_master
    from warehouse.console import say

    with recorded("privacy rotate-vault-key") as run, run.step("vault", "") as step:
        step.rows_out = change_master()
        say(f"{step.rows_out} keys are wrapped by the key that is set now" if step.rows_out else "nothing to do: they are wrapped by the key that is set now")


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


@privacy.command(short_help="Verify the records, or a certificate.")
@click.argument("certificate", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--public-key", metavar="KEY", help="Check the certificate with this key alone: no other setting is needed.")
def verify(certificate: Path | None, public_key: str | None) -> None:
    """Verify that nothing was edited, taken out or cut off: audit trail, ledger of erasures, consents. Exit code 1 otherwise.

    What the records say themselves is compared with the heads that the stores of backups keep. With CERTIFICATE, verify that
    one instead: its signature by --public-key, or by this warehouse's own key, with its seal too.
    """
    from warehouse.console import say
    from warehouse.errors import FindingsFound

    found = _wrong_with_records() if certificate is None else _wrong_with(certificate, public_key)
    if found:
        raise FindingsFound("\n".join(found), mend="docs/runbooks/erasure.md says what each means and what to do")
    if certificate is not None:
        say(f"{certificate.name}: genuine")
        return
    from privacy.records import chains

    for name, chain in chains().items():
        lines, seal = chain.head()
        say(f"{name}: {lines} lines, head {seal}")


def _wrong_with_records() -> list[str]:
    from cli.backup_work import anchored_problems
    from privacy.records import problems

    return [*problems(), *anchored_problems()]


def _wrong_with(certificate: Path, public_key: str | None) -> list[str]:
    from privacy import signing
    from privacy.erase import is_genuine

    text, found = certificate.read_text(), []
    own = public_key or signing.public_key()
    if own:
        found = signing.problems(text, own)
    if public_key is None and not is_genuine(text):
        found.append("not made by this warehouse, or edited")
    return [f"{certificate.name}: {problem}" for problem in found]


@privacy.command("signing-key", short_help="Show the public key of certificates.")
@click.option("--new", is_flag=True, help="Make a new pair: the private key for PRIVACY__SIGNING_KEY, on standard output alone.")
def signing_key(*, new: bool) -> None:
    """Show the public key with which anybody can check this warehouse's certificates: publish it."""
    from privacy.signing import new_key, public_key
    from warehouse.console import complain, say
    from warehouse.errors import UsageError

    if new:
        private, public = new_key()
        say(f"PRIVACY__SIGNING_KEY={private}")
        complain(f"keep it where your other secrets are; the public key is {public}")
        return
    own = public_key()
    if own is None:
        raise UsageError("PRIVACY__SIGNING_KEY is not set: certificates are sealed, and not signed.", mend="`warehouse privacy signing-key --new` makes a pair")
    say(own)


@privacy.command(short_help="Copy the records into the stores of backups.")
def anchor() -> None:
    """Copy the records as they are into the stores of backups, with their heads: locked, and compared by `verify` and by every restore.

    The heads go to people as well, by email or Slack where these are set up: a mailbox is one more place that nobody here can
    edit. Each erasure and each backup copies by itself; this is for what a store missed while it was away.
    """
    from cli.alert import announce_records
    from cli.backup_work import copy_records
    from privacy.records import heads
    from warehouse.console import say
    from warehouse.lease import lease

    with lease("privacy anchor"):
        wrong = copy_records(required=True)
        announce_records()
        if wrong:
            raise StepFailed("; ".join(wrong), mend="run again: what is done stays done")
    for name, head in heads().items():
        say(f"{name}: {head}")


def _build_anew(run: "Run", models: list[str]) -> None:
    from cli.run import expose_consents
    from serving.publish import publish
    from transform.build import build

    expose_consents()
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
