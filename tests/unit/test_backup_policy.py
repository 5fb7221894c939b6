"""The policy of backups: the one that is delivered holds, and each rule that is broken is refused with its key."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from backup.policy import configured, is_configured, policy
from warehouse.errors import DeclarationError, WarehouseError, scrub
from warehouse.settings import ROOT

Setting = Callable[[str, str | None], None]
KEY = "age1" + "q" * 58


@pytest.fixture
def declared(tmp_path: Path, setting: Setting) -> Callable[..., None]:
    """Put the delivered policy in force with some keys changed: `("stores.a.bucket", "x")`."""

    def write(*changes: tuple[str, object]) -> None:
        content = yaml.safe_load((ROOT / "backup" / "policy.yaml").read_text())
        for path, value in changes:
            *folders, last = path.split(".")
            inside = content
            for folder in folders:
                inside = inside[folder]
            inside[last] = value
        file = tmp_path / "policy.yaml"
        file.write_text(yaml.safe_dump(content))
        setting("BACKUP__POLICY", str(file))

    return write


def test_the_delivered_policy_holds_and_waits_to_be_configured(home: Path, fails: Callable[..., WarehouseError]) -> None:
    assert set(policy().stores) == {"a", "b"}
    assert not is_configured()
    said = fails(configured).what
    for missing in ("stores.a.bucket", "recipients", "BACKUP__B__ACCESS_KEY_ID"):
        assert missing in said


def test_with_buckets_recipients_and_keys_it_is_configured(declared: Callable[..., None], setting: Setting) -> None:
    declared(("stores.a.bucket", "one"), ("stores.b.bucket", "two"), ("recipients", [KEY]))
    for name in ("A", "B"):
        assert not is_configured()
        setting(f"BACKUP__{name}__ACCESS_KEY_ID", "id")
        setting(f"BACKUP__{name}__SECRET_ACCESS_KEY", "secret")
    assert is_configured()
    assert configured().recipients == (KEY,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([("data.warehouse.stores", ["a"])], "2 copies"),
        ([("stores.a.medium", "disk"), ("stores.b.medium", "disk")], "the rule is 2 media"),
        ([("home.site", "x"), ("stores.a.site", "x"), ("stores.b.site", "x")], "one off site"),
        ([("stores.a.lock.days", 8)], "longer than data.postgres.keep"),
        ([("stores.b.storage_class", "STANDARD_IA")], "charged for 30 days at the least, longer than data.postgres.keep"),
        ([("stores.b.storage_class", "DEEP_ARCHIVE"), ("data", {"warehouse": {"every": "1d", "keep": "200d", "stores": ["a", "b"]}})], "could not be verified"),
        ([("stores.a.bucket", "one"), ("stores.b.bucket", "one")], "one bucket"),
        ([("data.warehouse.keep", "1d")], "at least twice"),
        ([("data.warehouse.keep", "a month")], "for example 6h or 30d"),
        ([("data.warehouse.stores", ["b", "a"])], "begins with a"),
        ([("stores.c", {"region": "x"})], "stores.c"),
        ([("stores.a.endpoint", "https://user:password@host")], "stores.a.endpoint"),
        ([("recipients", ["AGE-SECRET-KEY-1"])], "recipients.0"),
        ([("data.warehouse.evry", "1d")], "evry is not known"),
    ],
)
def test_a_broken_rule_is_refused(declared: Callable[..., None], fails: Callable[..., WarehouseError], changes: list[tuple[str, object]], says: str) -> None:
    declared(*changes)
    error = fails(policy)
    assert isinstance(error, DeclarationError)
    assert says in error.what


def test_a_private_key_among_the_recipients_is_refused_and_not_told(declared: Callable[..., None], fails: Callable[..., WarehouseError]) -> None:
    declared(("recipients", ["AGE-SECRET-KEY-1ABCDEFGH"]))
    assert "ABCDEFGH" not in scrub(str(fails(policy)))
