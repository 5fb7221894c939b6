"""The keys of the vault: one for each key of a person, wrapped by the master key, in an SQLite file of their own.

The file stands outside of the warehouse and of its backups: who destroys a key in it erases what was sealed under it in every copy.
It knows persons by their tags alone, the same that the ledger of erasures keeps.
"""

import fcntl
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from privacy import keys
from privacy.policy import policy
from warehouse import clock
from warehouse.errors import StepFailed, UsageError
from warehouse.files import flush_file, flush_folder
from warehouse.settings import settings

KEY_BYTES = 32
_NONCE = 12
_STAMP = "%Y%m%dT%H%M%SZ"
_AAD = b"vault key 1:"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS master (key_id TEXT PRIMARY KEY, sealed BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS keys (id INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, wrapped BLOB NOT NULL, made_at TEXT NOT NULL)",
    # A row hangs on another person's row (a comment on its ticket): its key goes with that person's.
    "CREATE TABLE IF NOT EXISTS hangs (id INTEGER NOT NULL, upon INTEGER NOT NULL, PRIMARY KEY (upon, id)) WITHOUT ROWID",
    # By which keys of the pseudonyms the tags were made.
    "CREATE TABLE IF NOT EXISTS named_by (position INTEGER PRIMARY KEY, key_id TEXT NOT NULL)",
    # That a key was destroyed is known for ever, so that a lost key can be told from it.
    "CREATE TABLE IF NOT EXISTS destroyed (id INTEGER PRIMARY KEY, destroyed_at TEXT NOT NULL)",
)
_ALL_THAT_HANG = (
    "WITH RECURSIVE going (id) AS (SELECT k.id FROM keys k JOIN erased e ON e.tag = k.tag AND k.made_at <= e.at "
    "UNION SELECT h.id FROM hangs h JOIN going g ON h.upon = g.id) SELECT g.id FROM going g JOIN keys k ON k.id = g.id"
)


def file() -> Path:
    """Where the keys are kept: `PRIVACY__VAULT`, by default in the home, where backups of the warehouse leave it out."""
    return settings().vault_file


def keys_for(subjects: Iterable[str]) -> dict[str, tuple[int, bytes]]:
    """The keys of persons, each told as `kind:value`; who has none gets one, durable before this returns.

    Returns:
        `kind:value` -> number of the key, and its 32 bytes.

    Raises:
        UsageError: the master key is not set or not the one of this vault, or the key of the pseudonyms is another than the vault's.
    """
    tag_of = keys.chainer()
    wanted = {bytes.fromhex(tag_of(subject)): subject for subject in subjects}
    if not wanted:
        return {}
    master = _Master()
    with _opened() as store:
        master.check(store)
        _refuse_other_names(store)
        _given(store, "wanted", ((tag,) for tag in wanted), "tag BLOB PRIMARY KEY")
        held = store.execute("SELECT k.tag, k.id, k.wrapped FROM wanted w JOIN keys k ON k.tag = w.tag").fetchall()
        found = {wanted[tag]: (number, master.unwrap(number, wrapped)[0]) for tag, number, wrapped in held}
        missing = wanted.keys() - {tag for tag, _, _ in held}
        made = sorted((secrets.randbits(63), tag, secrets.token_bytes(KEY_BYTES)) for tag in missing)
        at = clock.now().isoformat(timespec="microseconds")
        wrapped = ((number, tag, master.wrap(number, key, wanted[tag]), at) for number, tag, key in made)
        store.executemany("INSERT INTO keys VALUES (?, ?, ?, ?)", wrapped)
        return found | {wanted[tag]: (number, key) for number, tag, key in made}


def keys_by_number(numbers: Iterable[int]) -> dict[int, bytes]:
    """The keys that are left of those numbered; one that was destroyed is missing.

    Raises:
        StepFailed: a key is neither here nor known to be destroyed: this is another vault, or an old copy of it.
    """
    master = _Master()
    with _opened() as store:
        master.check(store)
        _given(store, "wanted", ((number,) for number in set(numbers)), "id INTEGER PRIMARY KEY")
        lost = store.execute("SELECT count(*) FROM wanted w WHERE w.id NOT IN (SELECT id FROM keys) AND w.id NOT IN (SELECT id FROM destroyed)").fetchone()
        if lost[0]:
            raise StepFailed(
                f"{lost[0]} keys are neither in the vault nor were they destroyed: {file()} is another vault, or an old copy.",
                mend="put the newest copy of the vault in place (PRIVACY__VAULT); docs/how-to/vault.md",
            )
        held = store.execute("SELECT k.id, k.wrapped FROM wanted w JOIN keys k ON k.id = w.id").fetchall()
        return {number: master.unwrap(number, wrapped)[0] for number, wrapped in held}


def tags_of(numbers: Iterable[int]) -> list[str]:
    """The tags of the persons whose keys are numbered so."""
    with _opened() as store:
        _given(store, "wanted", ((number,) for number in set(numbers)), "id INTEGER PRIMARY KEY")
        return [tag.hex() for (tag,) in store.execute("SELECT k.tag FROM wanted w JOIN keys k ON k.id = w.id")]


def hang(pairs: Iterable[tuple[int, int]]) -> None:
    """Note that keys go when other keys go: (number, upon which)."""
    with _opened() as store:
        store.executemany("INSERT OR IGNORE INTO hangs VALUES (?, ?)", ((number, upon) for number, upon in pairs if number != upon))


def destroy(tags: Iterable[tuple[str, str]], at: Path | None = None) -> int:
    """Destroy the keys of erased persons, and of what hangs on them, for good: nothing sealed under them is read again, in any copy.

    Needs no master key. Killed at any moment, it is done again. Keys that were made after an erasure are another person's, who
    came later with the same email, and stay.

    Args:
        tags: with the time of their erasure, as `privacy.erasures.tags` gives them.
        at: a copy of the vault, where it is not the one in use.

    Returns:
        how many keys were destroyed.
    """
    path = at or file()
    if not path.exists():
        return 0
    with _opened(path) as store:
        if _named_by(store):
            _refuse_other_names(store)
        erased = ((bytes.fromhex(tag), _same_zone(when)) for tag, when in tags)
        _given(store, "erased", erased, "tag BLOB, at TEXT")
        going = [row[0] for row in store.execute(_ALL_THAT_HANG)]
        now = clock.now().isoformat(timespec="microseconds")
        store.executemany("INSERT OR IGNORE INTO destroyed VALUES (?, ?)", ((number, now) for number in going))
        store.executemany("UPDATE keys SET wrapped = zeroblob(length(wrapped)), tag = randomblob(32) WHERE id = ?", ((number,) for number in going))
        store.executemany("DELETE FROM keys WHERE id = ?", ((number,) for number in going))
        left = store.execute("SELECT count(*) FROM hangs WHERE upon NOT IN (SELECT id FROM keys) OR id NOT IN (SELECT id FROM keys)").fetchone()[0]
        store.execute("DELETE FROM hangs WHERE upon NOT IN (SELECT id FROM keys) OR id NOT IN (SELECT id FROM keys)")
    _leave_no_bytes(path, is_to_shrink=bool(going or left))
    return len(going)


def rename(at: Path | None = None) -> int:
    """Know persons by tags of the keys of the pseudonyms that are in force now, in one transaction; returns how many were renamed.

    Args:
        at: a copy of the vault, where it is not the one in use.

    Raises:
        UsageError: the master key is not set or not the one of this vault, or it was named by other keys.
    """
    path = at or file()
    if not path.exists() or named_by(path) in ([], keys.ring_ids()):
        return 0
    master = _Master()
    with _opened(path) as store:
        master.check(store)
        before = _named_by(store)
        if before != keys.ring_ids()[: len(before)]:
            _refuse_other_names(store)
        again = keys.chainer(len(before))
        held, tag_of = store.execute("SELECT id, wrapped FROM keys").fetchall(), keys.chainer()
        for number, wrapped in held:
            key, subject = master.unwrap(number, wrapped)
            kind, _, value = subject.partition(":")
            subject = f"{kind}:{again(value)}" if kind == "email" else subject
            row = (bytes.fromhex(tag_of(subject)), master.wrap(number, key, subject), number)
            store.execute("UPDATE keys SET tag = ?, wrapped = ? WHERE id = ?", row)
        _name(store)
    _leave_no_bytes(path, is_to_shrink=True)
    return len(held)


def change_master() -> int:
    """Wrap all keys by another master key, in one transaction: the one that is set now, instead of `PRIVACY__VAULT_KEY_BEFORE`.

    Killed at any moment, it is done again; done already, it changes nothing. Copies that were made before need the old key.

    Returns:
        how many keys were wrapped anew.

    Raises:
        UsageError: there is no vault, one of the keys is not set, or the one before is not the one of this vault.
    """
    if not file().exists():
        raise UsageError(f"there is no vault at {file()}.", mend="a load of a column that is declared `encrypt`, or an archive, makes it")
    now, before = _Master(), _Master(settings().vault_key_before())
    with _opened() as store:
        held = []
        if not now.fits(store):
            before.check(store, name="PRIVACY__VAULT_KEY_BEFORE")
            held = store.execute("SELECT id, wrapped FROM keys").fetchall()
        rows = ((now.wrap(number, *before.unwrap(number, wrapped)), number) for number, wrapped in held)
        store.executemany("UPDATE keys SET wrapped = ? WHERE id = ?", rows)
        store.execute("UPDATE master SET sealed = ?", (now.wrap(0, bytes(KEY_BYTES), "check"),))
    _leave_no_bytes(file(), is_to_shrink=True)
    return len(held)


def named_by(at: Path | None = None) -> list[str]:
    """By which keys of the pseudonyms, told by their ids, persons are known here; none when there is no vault yet."""
    path = at or file()
    if not path.exists():
        return []
    with _opened(path) as store:
        return _named_by(store)


def count_of(at: Path) -> int:
    """How many keys a copy of the vault holds."""
    with _opened(at) as store:
        return int(store.execute("SELECT count(*) FROM keys").fetchone()[0])


def copy_to(target: Path) -> int:
    """Write a copy of the vault as of one instant, for its own backup: keep it for 30 days at the most. Returns the number of keys in it.

    A copy that is put back holds keys that were destroyed since: `privacy.erasures.replay` destroys them again.
    """
    target.unlink(missing_ok=True)
    with _alone(file()) as path, _connected(path) as store:
        store.execute("VACUUM INTO ?", (str(target),))
        count = store.execute("SELECT count(*) FROM keys").fetchone()[0]
    target.chmod(0o600)
    flush_file(target)
    flush_folder(target.parent)
    return int(count)


def back_up(folder: Path) -> Path:
    """Write a copy of the vault to a folder elsewhere, and remove the copies there that are older than the policy keeps them.

    Returns:
        the copy.

    Raises:
        UsageError: there is no vault, or the folder is in the home, where what copies the home would keep it for longer.
    """
    if not file().exists():
        raise UsageError(f"there is no vault at {file()}.", mend="a load of a column that is declared `encrypt`, or an archive, makes it")
    if folder.resolve().is_relative_to(settings().home):
        raise UsageError(f"{folder} is inside WAREHOUSE_HOME.", mend="name a folder elsewhere, best on another machine")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = clock.now()
    copy = folder / f"vault_{now:{_STAMP}}.sqlite"
    copy_to(copy)
    oldest = now - timedelta(days=policy().vault.copies_kept_days)
    for old in folder.glob("vault_*.sqlite"):
        if datetime.strptime(old.stem, f"vault_{_STAMP}").replace(tzinfo=UTC) < oldest:
            overwrite(old)
    return copy


def check() -> int:
    """How many keys there are, when the master key is the one of this vault.

    Raises:
        UsageError: it is not, or is not set.
    """
    master = _Master()
    with _opened() as store:
        master.check(store)
        return int(store.execute("SELECT count(*) FROM keys").fetchone()[0])


class _Master:
    """What wraps the keys; made of `PRIVACY__VAULT_KEY`."""

    def __init__(self, given: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        given = given or settings().vault_key()
        self._cipher = AESGCM(hashlib.sha256(b"vault master 1:" + given).digest())

    def wrap(self, number: int, key: bytes, subject: str) -> bytes:
        """A key as it is kept, bound to its number, with whose it is (so that tags can be made anew with other keys)."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, key + subject.encode(), _AAD + number.to_bytes(8, "big"))

    def unwrap(self, number: int, wrapped: bytes) -> tuple[bytes, str]:
        """The key itself, and whose it is."""
        from cryptography.exceptions import InvalidTag

        try:
            plain = self._cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], _AAD + number.to_bytes(8, "big"))
            return plain[:KEY_BYTES], plain[KEY_BYTES:].decode()
        except InvalidTag:
            raise StepFailed(f"a key in {file()} was altered.", mend="put the newest copy of the vault in place") from None

    def check(self, store: sqlite3.Connection, name: str = "PRIVACY__VAULT_KEY") -> None:
        """Refuse a master key that is not the one of this vault; the first that is used is noted."""
        if store.execute("SELECT 1 FROM master").fetchone() is None:
            store.execute("INSERT INTO master VALUES ('v1', ?)", (self.wrap(0, bytes(KEY_BYTES), "check"),))
            _name(store)
        elif not self.fits(store):
            raise UsageError(f"{name} is not the key of the vault {file()}.", mend="set the key it was made with")

    def fits(self, store: sqlite3.Connection) -> bool:
        """Whether it is the master key of this vault."""
        from cryptography.exceptions import InvalidTag

        row = store.execute("SELECT sealed FROM master").fetchone()
        try:
            return row is not None and bool(self._cipher.decrypt(row[0][:_NONCE], row[0][_NONCE:], _AAD + bytes(8)))
        except InvalidTag:
            return False


def _named_by(store: sqlite3.Connection) -> list[str]:
    return [row[0] for row in store.execute("SELECT key_id FROM named_by ORDER BY position")]


def _name(store: sqlite3.Connection) -> None:
    store.execute("DELETE FROM named_by")
    store.executemany("INSERT INTO named_by VALUES (?, ?)", enumerate(keys.ring_ids()))


def _refuse_other_names(store: sqlite3.Connection) -> None:
    if (known := _named_by(store)) != keys.ring_ids():
        raise UsageError(
            f"the vault knows persons by the keys {', '.join(known)} of the pseudonyms, and {', '.join(keys.ring_ids())} are set.",
            mend="`warehouse privacy rotate-key`; docs/how-to/rotate-keys.md",
        )


def _same_zone(at: str) -> str:
    return datetime.fromisoformat(at).isoformat(timespec="microseconds")


def _given(store: sqlite3.Connection, name: str, rows: "Iterable[Sequence[object]]", columns: str) -> None:
    store.execute(f"CREATE TEMP TABLE {name} ({columns})")
    store.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * (columns.count(',') + 1))})", rows)


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file, while no other process is at it: a journal is overwritten here, which a transaction of another might need."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        yield path
    finally:
        os.close(handle)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    store = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        store.execute("PRAGMA journal_mode = PERSIST")
        store.execute("PRAGMA synchronous = FULL")
        store.execute("PRAGMA secure_delete = ON")
        store.execute("PRAGMA temp_store = MEMORY")
        yield store
    finally:
        store.close()


@contextmanager
def _opened(at: Path | None = None) -> Iterator[sqlite3.Connection]:
    """The vault, or a copy of it, in one durable transaction; an error undoes it."""
    with _alone(at or file()) as path, _connected(path) as store:
        for table in _TABLES:
            store.execute(table)
        store.execute("BEGIN IMMEDIATE")
        yield store
        store.execute("COMMIT")


def _leave_no_bytes(at: Path, *, is_to_shrink: bool) -> None:
    """Overwrite the journal, which holds what was before, also one that a kill left; write the file anew without what was deleted."""
    with _alone(at) as path:
        journal = path.with_name(f"{path.name}-journal")
        with _connected(path) as store:
            store.execute("SELECT count(*) FROM keys").fetchone()  # a transaction that a kill left open is undone by its journal first
            if is_to_shrink:
                store.execute("VACUUM")
        overwrite(journal)
        flush_file(path)


def overwrite(path: Path) -> None:
    """Write noughts where a file of keys stood, and remove it; of one that is not there nothing is left."""
    if not path.exists():
        return
    size, block = path.stat().st_size, 1 << 20
    with path.open("r+b") as handle:
        for start in range(0, size, block):
            handle.write(b"\0" * min(block, size - start))
        handle.flush()
        os.fsync(handle.fileno())
    path.unlink()
    flush_folder(path.parent)
