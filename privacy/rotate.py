"""Change the key of the pseudonyms: everything that is held is hashed once more with the new key, and read with it from then on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from privacy import audit, consent, erasures, files, key_state, keys, rekey, rekey_records, vault_keys
from privacy.erase import certificate_file
from warehouse import storage
from warehouse.errors import UsageError
from warehouse.ledger import Run
from warehouse.settings import settings


@dataclass
class Rotated:
    """What was changed.

    Attributes:
        keys: ids of the keys in force, the oldest first.
        places: place -> rows, or keys, or emails of erased persons, that were hashed again; nothing where all was done before.
        without_emails: erasures noted by an older version of this project, whose persons are kept out by all keys but the email.
    """

    keys: list[str]
    places: dict[str, int] = field(default_factory=dict)
    without_emails: int = 0


def rotate(run: Run, publish: Callable[[], object]) -> Rotated:
    """Hash all that is held again until it is made with the keys in force. Hold the lease. Killed at any moment, it is repeated.

    Args:
        run: where each place is recorded as a step `rotate key`.
        publish: publishes the marts; versions from before are removed then.

    Raises:
        UsageError: what is held was made with other keys than those before the newest, or the master key of the vault is not set.
        StepFailed: rows name a key that is not set, or a record was tampered with.
    """
    done = Rotated(keys.ring_ids())
    if len(done.keys) == 1:
        raise UsageError(
            "there is one key of the pseudonyms, and nothing to change it from.",
            mend='put the old one into PRIVACY__HMAC_KEYS_BEFORE (`{"k1": "…"}`), a new one into PRIVACY__HMAC_KEY, its id into PRIVACY__HMAC_KEY_ID',
        )
    with storage.open_warehouse() as connection:
        key_state.known(connection)
    with run.step("rotate key", "vault") as step:  # before the rows, so that nothing is sealed under an old tag
        step.rows_out = done.places["vault"] = vault_keys.rename()
    with run.step("rotate key", "records"):
        told = rekey_records.seal_anew(erasures.ledger(), audit.trail(), consent.record_of_consents(), certificate_file(0).parent)
        done.places["emails of erased persons"], done.without_emails = told.emails, told.without_emails
    with storage.open_warehouse() as connection, run.step("rotate key", "rows") as step:
        is_built = files.has_built(connection)
        changed = rekey.rekey(connection, settings().landing)
        consent.expose(connection)
        step.rows_out = sum(changed.values())
        done.places |= changed
    with run.step("rotate key", "working files"):
        files.remove_scratch()
    if settings().storage == "duckdb":
        with run.step("rotate key", "free pages"):
            files.compact(settings().warehouse_file)
    if is_built:
        with run.step("publish"):
            publish()
        _forget_published()
    done.places = {place: count for place, count in done.places.items() if count}
    if not any(line["what"] == "rotate-key" and line["keys"] == done.keys for line in audit.trail().lines()):
        audit.note("rotate-key", [], keys=done.keys)
    return done


def _forget_published() -> None:
    """Remove the versions that readers no longer see: they hold the old pseudonyms."""
    current = (settings().published / "current").resolve()
    for version in settings().published.glob("v*") if settings().published.exists() else []:
        if version.is_dir() and version.resolve() != current:
            shutil.rmtree(version)
