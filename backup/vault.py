"""The keys of the vault in the stores: sealed as all is, and kept for thirty days at the most, so that a destroyed key goes from there too."""

from pathlib import Path

from backup import manifest
from backup.manifest import Table
from backup.pack import Source
from backup.policy import Kind
from backup.restore import Choice, Restored, unpacked
from backup.take import Known, Taken, prepared, spread, upload
from privacy import erasures, vault_keys
from warehouse import clock
from warehouse.errors import StepFailed, UsageError
from warehouse.files import sha256

KIND: Kind = "vault"
FILE = "keys.sqlite"
_TABLE = "vault.keys"


def exists() -> bool:
    """Whether there is a vault: one is made by the first value that is sealed."""
    return vault_keys.file().exists()


def take_vault() -> Taken:
    """Keep the keys as they are at one instant. Hold `one_at_a_time`.

    The copy is made beside the vault and overwritten afterwards; one that a kill left is overwritten by the next.

    Raises:
        UsageError: backups are not configured, or there is no vault. StepFailed: no store has it.
    """
    policy, chosen, keys = prepared(KIND)
    if not exists():
        raise UsageError(f"there is no vault at {vault_keys.file()}.", mend="a load of a column that is declared `encrypt`, or an archive, makes it")
    copy = vault_keys.file().with_name(".being_backed_up.sqlite")
    vault_keys.overwrite(copy)
    try:
        taken_at = clock.now()
        count = vault_keys.copy_to(copy)
        now, content = copy.stat(), sha256(copy)
        backup, indexes = upload(
            KIND, chosen[0], Known.of(chosen[0], KIND), taken_at, [Source(FILE, copy, now.st_size, content, 0o600, now.st_mtime_ns)], keys,
            tables={_TABLE: Table(rows=count, fingerprint=content[:32])}, versions=manifest.versions(), recipients=policy.recipients,
            erasures=erasures.mark(),
        )  # fmt: skip
        return spread(backup, indexes, chosen, policy, 0.0)
    finally:
        vault_keys.overwrite(copy)


def restore_vault(choice: Choice, backup: str, into: Path) -> Restored:
    """Write the keys into a folder that does not exist yet, and destroy in them again the keys of everybody who was erased since.

    Raises:
        As `restore_warehouse`.
    """
    with unpacked(choice, backup, into) as (restored, partial, _):
        copy, kept = partial / FILE, restored.backup.tables[_TABLE]
        try:
            if sha256(copy)[:32] != kept.fingerprint or vault_keys.count_of(copy) != kept.rows:
                raise StepFailed(f"{backup} has not the keys that were kept.", mend="restore another: `warehouse backup list`")
            vault_keys.rename(copy)
            if gone := vault_keys.destroy(erasures.tags(), copy):
                restored.notes.append(f"{gone} keys of persons who were erased since were destroyed again")
        except BaseException:
            vault_keys.overwrite(copy)
            raise
        restored.tables = 1
        copy.with_name(f"{FILE}.lock").unlink(missing_ok=True)
        partial.chmod(0o700)
    return restored
