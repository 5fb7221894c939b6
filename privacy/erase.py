"""Erase persons everywhere. What is noted first is that they are erased; every step after that can be killed and repeated."""

import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from privacy import audit, consent, erasures, files, rekey_records, signing, spooled, vault_keys
from privacy import keys as keys_in_force
from privacy.policy import policy
from privacy.subjects import EMAIL, Subject, bind_tags, resolve, tag
from warehouse import clock, storage
from warehouse.errors import WarehouseError
from warehouse.files import write_atomically
from warehouse.ledger import Run
from warehouse.settings import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


Remains = dict[str, str]
"""What is still held (`what`), until when (`until`) and why (`why`)."""


@dataclass
class Certificate:
    """What an erasure did.

    Attributes:
        number: of the erasure in the ledger; 0 for a dry run.
        subjects: tags of the keys that were named.
        keys: how many keys of the subjects are known by now, those of rows that hang on them among them.
        resumed: numbers of the erasures that had been interrupted and were carried through.
        places: place -> what changed there, with rows or records; one that is empty was searched and held nothing.
        remains: what is still held, until when, and why.
        seal: keyed hash over all of it.
        signature: of all of it and the seal, by the key `PRIVACY__SIGNING_KEY`; empty without one. See privacy.signing.
    """

    number: int
    asked_at: str
    subjects: list[str]
    keys: int = 0
    done_at: str = ""
    is_dry_run: bool = False
    resumed: list[int] = field(default_factory=list)
    places: dict[str, dict[str, int]] = field(default_factory=dict)
    remains: list[Remains] = field(default_factory=list)
    seal: str = ""
    signature: str = ""

    def as_json(self) -> str:
        """The certificate as text; without its seal it is what the seal was made of."""
        return json.dumps(asdict(self), indent=2)


def plan(named: Sequence[Subject], backups: Sequence[Remains] = ()) -> Certificate:
    """What an erasure would change. Nothing is written. Hold the lease.

    Raises:
        UsageError: an email names several persons.
    """
    certificate = Certificate(0, clock.now().isoformat(), _tags(named), is_dry_run=True)
    with storage.open_warehouse() as connection:
        keys = {tag(one.kind, one.value) for one in resolve(connection, named)}
        bind_tags(connection, [*erasures.tags(), *((one, certificate.asked_at) for one in sorted(keys))])
        certificate.places = {
            "raw tables": erasures.erase_raw(connection, dry_run=True),
            "built tables": files.erase_built(connection, dry_run=True),
            "published copies": files.erase_published(connection, settings().published, dry_run=True),
            "landing zone": files.erase_landing(connection, settings().landing, dry_run=True),
        }
        certificate.keys = _known(connection)
        tags = frozenset(row[0] for row in connection.execute("SELECT tag FROM _erased").fetchall())
    spool = spooled.erase_spool(tags, dry_run=True)
    certificate.places |= {"spool": spool.changed, "logs": spooled.erase_lines(settings().home, tags, dry_run=True)}
    certificate.remains = [*_remains(certificate, spool), *backups]
    return certificate


def erase(
    named: Sequence[Subject], run: Run, build_anew: Callable[[list[str]], None], copy_records: Callable[[], object] = list, backups: Sequence[Remains] = ()
) -> Certificate:
    """Erase persons, and whoever an interrupted erasure had not finished with. Hold the lease.

    Args:
        run: where each place is recorded as a step `erase`.
        build_anew: builds the models named anew and whatever else has changed, and publishes.
        copy_records: copies the ledger to where a restore asks for it, as soon as the erasure is noted; the caller does so again at the end.
        backups: what they still hold, until when and why.

    Raises:
        UsageError: an email names several persons; nothing was changed.
        WarehouseError: the models could not be built or published. Everybody is erased then all the same, but for rows of
            facts that are missing until a build succeeds.
    """
    with storage.open_warehouse() as connection:
        keys = resolve(connection, named)
    number, resumed = _begin(named, [tag(one.kind, one.value) for one in keys], {one.value for one in (*named, *keys) if one.kind == EMAIL})
    copy_records()
    this = next(erasure for erasure in erasures.all_erasures() if erasure.number == number)
    certificate = Certificate(number, this.at, _tags(named), resumed=resumed)
    places = certificate.places
    with storage.open_warehouse() as connection:
        erasures.bind(connection)
        with run.step("erase", "raw tables") as step:
            places["raw tables"] = erasures.erase_raw(connection)
            step.rows_out = sum(places["raw tables"].values())
        with run.step("erase", "landing zone") as step:
            places["landing zone"] = files.erase_landing(connection, settings().landing)
            step.rows_out = sum(places["landing zone"].values())
        with run.step("erase", "vault") as step:
            step.rows_out = vault_keys.destroy(erasures.tags())
            places["vault"] = {"keys": step.rows_out} if step.rows_out else {}
        with run.step("erase", "built tables") as step:
            is_built = files.has_built(connection)
            places["built tables"] = files.erase_built(connection)
            step.rows_out = sum(places["built tables"].values())
        with run.step("erase", "published copies") as step:
            places["published copies"] = files.erase_published(connection, settings().published)
            step.rows_out = sum(places["published copies"].values())
        certificate.keys = _known(connection)
        consent.expose(connection)
    tags = frozenset(one for one, _ in erasures.tags())
    with run.step("erase", "spool") as step:
        spool = spooled.erase_spool(tags)
        places |= {"spool": spool.changed, "logs": spooled.erase_lines(settings().home, tags)}
        step.rows_out = sum(spool.changed.values())
    places["working files"] = dict.fromkeys(files.remove_scratch(), 1)
    certificate.remains = [*_remains(certificate, spool), *backups]
    failure = _build(certificate, build_anew) if is_built else None
    if settings().storage == "duckdb":
        with run.step("erase", "free pages"):
            places["free pages"] = {settings().warehouse_file.name: files.compact(settings().warehouse_file)}
    certificate.done_at = clock.now().isoformat()
    certificate.seal = _seal(certificate)
    certificate.signature = signing.sign(asdict(certificate))
    write_atomically(certificate_file(number), certificate.as_json() + "\n", mode=0o600)
    audit.note("erase", certificate.subjects, erasure=number, certificate=certificate.seal, keys_destroyed=places["vault"].get("keys", 0))
    for unfinished in [*resumed, *([] if number in resumed else [number])]:  # last: killed before, all of it is done again
        erasures.finish(unfinished)
    if failure is not None:
        raise failure
    return certificate


def certificate_file(number: int) -> Path:
    """Where the certificate of an erasure is kept."""
    return settings().erasures / "certificates" / f"{number:06}.json"


def is_genuine(text: str) -> bool:
    """Whether a certificate was made with this warehouse's key and not edited since."""
    content = json.loads(text)
    return any(hmac.compare_digest(str(content.get("seal")), rekey_records.seal_of_certificate(content, key)) for _, key in keys_in_force.ring())


def _begin(named: Sequence[Subject], keys: Sequence[str], emails: set[str]) -> tuple[int, list[int]]:
    """Note the erasure, or find the one that was interrupted; returns its number, and those of all that were."""
    unfinished = [one for one in erasures.all_erasures() if not one.is_done]
    resumed = [one.number for one in unfinished]
    tags = set(_tags(named))
    same = next((one.number for one in unfinished if set(one.named) == tags and set(keys) <= set(one.tags)), None)
    if same is not None:
        return same, resumed
    number = erasures.begin(sorted(tags), keys, emails)
    audit.note("begin erase", sorted(tags), erasure=number)
    return number, resumed


def _build(certificate: Certificate, build_anew: Callable[[list[str]], None]) -> WarehouseError | None:
    """Build and publish; what fails is told at the end, when everybody is erased."""
    try:
        build_anew(files.models_of(certificate.places["built tables"]))
    except WarehouseError as error:
        why = "the build failed after the erasure; `warehouse run` says why"
        certificate.remains.append({"what": "facts are missing in built tables and in the published copy", "until": "a build succeeds", "why": why})
        return error
    return None


def _remains(certificate: Certificate, spool: spooled.Spooled) -> list[Remains]:
    blank = {name: rule.why or "" for name, rule in policy().subjects.items() if rule.erase == "blank"}
    kept = sorted(table for table in certificate.places["raw tables"] if table.removeprefix("raw_") in blank)
    remains = [{"what": f"rows of {table}, without the person", "until": "for good", "why": blank[table.removeprefix("raw_")]} for table in kept]
    if certificate.places.get("vault"):
        why = "docs/how-to/vault.md; a copy that is put back is rid of these keys by the restore's replay"
        remains.append({"what": "keys in copies of the vault", "until": f"{policy().vault.copies_kept_days} days from now", "why": why})
    remains += spooled.describe(spool)
    if settings().storage == "motherduck":
        remains.append({"what": "past versions in MotherDuck", "until": "MotherDuck lets go of them", "why": "they cannot be written anew from here"})
    remains.append({"what": "the sources' own copies", "until": "they are erased there", "why": "loads do not bring the person back"})
    return remains


def _known(connection: "DuckDBPyConnection") -> int:
    row = connection.execute("SELECT count(*) FROM _erased").fetchone()
    return int(row[0]) if row else 0


def _tags(named: Sequence[Subject]) -> list[str]:
    return sorted({tag(one.kind, one.value) for one in named})


def _seal(certificate: Certificate) -> str:
    return rekey_records.seal_of_certificate(asdict(certificate), settings().hmac_key())
