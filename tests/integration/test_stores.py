"""A store keeps what it was given, whole or not at all, and for ever the first; and sealing opens with the right key only."""

import io
import random
import resource
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest
from integration.object_stores import KEYS, Backups, S3Server

from backup import transfer
from backup.encryption import Damaged, WrongKey, identities, opened, recipients, seal
from backup.policy import StoreDeclaration, policy
from backup.store import Forbidden, Held, Missing, Store, StoreFailed, Taken, stores
from warehouse import clock, settings
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import StoreCredentials

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
CONTENT = random.Random(7).randbytes(21_000_000)


@pytest.fixture
def store(backups: Backups) -> Store:
    return stores()["a"]


def _held(store: Store, key: str) -> Held:
    return store.held(key)[key]


def test_an_object_is_written_in_parts_and_read_back_whole(store: Store) -> None:
    with store.upload("packs/large", len(CONTENT)) as upload:
        for begin in range(0, len(CONTENT), 1 << 20):
            upload.write(CONTENT[begin : begin + (1 << 20)])
    reader = store.reader(_held(store, "packs/large"))
    reader.check(upload.stored)
    assert reader.bytes == len(CONTENT)
    assert store.read(_held(store, "packs/large")) == CONTENT


@pytest.mark.parametrize("content", [b"small", CONTENT], ids=["one request", "parts"])
def test_nothing_is_ever_overwritten(store: Store, content: bytes, fails: Fails) -> None:
    store.put("key", b"the first")
    assert isinstance(fails(store.put, "key", content), Taken)
    assert store.read(_held(store, "key")) == b"the first"


def test_an_upload_that_breaks_off_leaves_nothing(store: Store, backups: Backups) -> None:
    def broken() -> None:
        with store.upload("key", 0) as upload:
            upload.write(CONTENT)
            raise KeyError("the source broke")

    with pytest.raises(KeyError):
        broken()
    assert store.held("") == {}
    assert backups.prefix not in str(backups.servers["a"].client().list_multipart_uploads(Bucket=backups.buckets["a"]).get("Uploads"))


def test_an_answer_that_was_lost_is_no_overwriting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has the object, its answer is lost, and the library asks again."""
    put = store.client.put_object

    def twice(**given: object) -> object:
        put(**given)
        return put(**given)

    monkeypatch.setattr(store.client, "put_object", twice)
    assert store.put("key", b"content").bytes == 7
    assert store.read(_held(store, "key")) == b"content"


def test_a_turned_bit_or_a_missing_end_is_found(store: Store, backups: Backups, fails: Fails) -> None:
    written = store.put("key", CONTENT[:1000])
    backups.flip("a", backups.full("key"))
    assert isinstance(fails(store.reader(_held(store, "key")).check, written), Damaged)
    client = backups.servers["a"].client()
    short = store.put("short", CONTENT[:1000])
    held = _held(store, "short")
    client.delete_object(Bucket=backups.buckets["a"], Key=backups.full("short"), VersionId=held.version)
    client.put_object(Bucket=backups.buckets["a"], Key=backups.full("short"), Body=CONTENT[:999])
    assert isinstance(fails(store.reader(_held(store, "short")).check, short), Damaged)


def test_a_locked_object_cannot_be_deleted_with_full_keys_and_what_lies_above_it_is_passed_over(backups: Backups, fails: Fails) -> None:
    backups.write(lock_days=1)
    store = stores()["a"]
    store.put("key", b"true")
    assert isinstance(fails(store.delete, _held(store, "key")), Forbidden)
    attacker = backups.servers["a"].client()
    time.sleep(1.1)  # stores tell the time of a version to the second
    attacker.delete_object(Bucket=backups.buckets["a"], Key=backups.full("key"))
    attacker.put_object(Bucket=backups.buckets["a"], Key=backups.full("key"), Body=b"false")
    attacker.delete_object(Bucket=backups.buckets["a"], Key=backups.full("key"))
    held = _held(store, "key")
    assert held.hides
    assert len(held.above) == 3
    assert store.read(held) == b"true"
    store.uncover(held)
    assert attacker.get_object(Bucket=backups.buckets["a"], Key=backups.full("key"))["Body"].read() == b"true"


def test_a_lock_is_made_longer_and_never_shorter(backups: Backups) -> None:
    backups.write(lock_days=5)
    store = stores()["a"]
    store.put("key", b"content")
    for days, left in ((2, 5), (20, 20)):
        store.lock_until(_held(store, "key"), clock.now() + timedelta(days=days))
        kept = backups.servers["a"].client().get_object_retention(Bucket=backups.buckets["a"], Key=backups.full("key"))["Retention"]
        assert (kept["RetainUntilDate"] - clock.now()) / timedelta(days=1) == pytest.approx(left, abs=0.1)


def test_setting_up_twice_changes_nothing_and_adds_what_is_missing(backups: Backups, s3: S3Server) -> None:
    assert len(stores()["a"].set_up()) == 1, "the rules are written anew"
    s3.client().create_bucket(Bucket="plain")
    plain = policy().stores["a"].model_copy(update={"bucket": "plain"})
    plain = StoreDeclaration.model_validate({**plain.model_dump(), "lock": {"days": 1}})
    made = Store("a", plain, settings.settings().backup.a)
    assert [line.split(" ")[0] for line in made.set_up()] == ["versioning", "Object", "rule:"]
    made.put("key", b"content")
    with pytest.raises(Forbidden):
        made.delete(_held(made, "key"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bucket": "no-such-bucket"}, "does not exist"),
        ({"endpoint": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"key": "nobody"}, "refuses the key: InvalidAccessKeyId"),
        ({"secret": "wrong"}, "refuses the key: SignatureDoesNotMatch"),
    ],
)
def test_what_the_store_refuses_is_named_and_no_secret_is_told(backups: Backups, fails: Fails, change: dict[str, str], says: str) -> None:
    key, secret = KEYS["a"]
    access = StoreCredentials.model_validate({"access_key_id": change.get("key", key), "secret_access_key": change.get("secret", secret)})
    place = {name: value for name, value in change.items() if name in ("bucket", "endpoint")}
    store = Store("a", policy().stores["a"].model_copy(update=place), access)
    for error in (fails(store.held, ""), fails(store.put, "key", b"content"), fails(store.put, "key", CONTENT)):
        assert isinstance(error, StoreFailed)
        assert says in error.what
        assert error.mend
        assert secret not in str(error) + repr(error)


def test_a_missing_object_is_named(store: Store, fails: Fails) -> None:
    store.put("key", b"content")
    held = _held(store, "key")
    store.delete(held)
    error = fails(store.read, held)
    assert isinstance(error, Missing)
    assert "key" in error.what


# -- sealing --------------------------------------------------------------------------------------------------------------


def _sealed(content: bytes, *keys: pyrage.x25519.Identity) -> bytes:
    out = io.BytesIO()
    seal(io.BytesIO(content), out, [key.to_public() for key in keys])
    return out.getvalue()


def _opened(sealed: bytes, *keys: pyrage.x25519.Identity) -> bytes:
    with opened(io.BytesIO(sealed), keys) as plain:
        return plain.read()


def test_each_of_several_keys_opens_and_another_does_not(home: Path) -> None:
    old, new, other = (pyrage.x25519.Identity.generate() for _ in range(3))
    sealed = _sealed(CONTENT[:300_000], old, new)
    assert CONTENT[:40] not in sealed
    assert _opened(sealed, old) == _opened(sealed, other, new) == CONTENT[:300_000]
    with pytest.raises(WrongKey):
        _opened(sealed, other)
    assert _opened(_sealed(b"", old), old) == b""


@pytest.mark.parametrize("seed", range(12))
def test_each_turned_bit_and_each_missing_end_is_found(home: Path, seed: int) -> None:
    chance, key = random.Random(seed), pyrage.x25519.Identity.generate()
    sealed = bytearray(_sealed(CONTENT[:200_000], key))
    cut = bytes(sealed[: chance.randrange(len(sealed))])
    sealed[chance.randrange(len(sealed))] ^= 1 << chance.randrange(8)
    for damaged in (cut, bytes(sealed)):
        with pytest.raises((Damaged, WrongKey)):
            _opened(damaged, key)


def test_what_breaks_while_sealing_or_opening_is_what_is_told(home: Path) -> None:
    class Broken:
        def read(self, size: int = -1) -> bytes:
            raise StoreFailed("the source broke")

        def write(self, data: bytes) -> int:
            raise StoreFailed("the target broke")

    key = pyrage.x25519.Identity.generate()
    with pytest.raises(StoreFailed, match="the source broke"):
        seal(Broken(), io.BytesIO(), [key.to_public()])
    with pytest.raises(StoreFailed, match="the target broke"):
        seal(io.BytesIO(CONTENT), Broken(), [key.to_public()])
    with pytest.raises(StoreFailed, match="the source broke"), opened(Broken(), [key]) as plain:
        plain.read()

    def gives_up() -> None:
        with opened(io.BytesIO(_sealed(CONTENT, key)), [key]) as plain:
            plain.read(10)
            raise ValueError("the reader broke")

    with pytest.raises(ValueError, match="the reader broke"):
        gives_up()


def test_memory_is_bounded_whatever_the_size(home: Path) -> None:
    class Endless:
        left = 400_000_000

        def read(self, size: int = -1) -> bytes:
            size = min(size if size >= 0 else self.left, self.left)
            self.left -= size
            return CONTENT[:size]

    class Nowhere:
        bytes = 0

        def write(self, data: bytes) -> int:
            self.bytes += len(data)
            return len(data)

    before, target = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Nowhere()
    seal(Endless(), target, [pyrage.x25519.Identity.generate().to_public()])
    assert target.bytes > 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"


def test_parts_are_large_enough_for_ten_thousand_of_them() -> None:
    for size in (0, 1 << 30, 1 << 40):
        assert transfer.part_bytes(size) * 10_000 >= size * 1.1


def test_keys_that_are_none_are_refused_and_private_ones_not_shown(setting: Setting, tmp_path: Path, fails: Fails) -> None:
    key = pyrage.x25519.Identity.generate()
    wrong = str(key.to_public())[:-1] + ("q" if str(key.to_public())[-1] != "q" else "p")
    assert isinstance(fails(recipients, [wrong]), UsageError)
    assert isinstance(fails(recipients, []), UsageError)
    assert "not set" in fails(identities).what
    file = tmp_path / "key.txt"
    for value in (str(key)[:-1] + "X", str(tmp_path / "nothing"), str(file)):
        file.write_text("# only a comment\n")
        setting("BACKUP__IDENTITIES", value)
        assert str(key)[20:60] not in str(fails(identities))
    file.write_text(f"# created: today\n# public key: {key.to_public()}\n{key}\n")
    setting("BACKUP__IDENTITIES", str(file))
    assert len(identities()) == 1
    setting("BACKUP__IDENTITIES", str(key))
    assert str(key) in settings.secret_values()
    assert str(key) not in repr(settings.settings())
