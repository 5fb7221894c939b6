"""The policy of backups: the one that is delivered holds, and each rule that is broken is refused with its key."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from backup import prices
from backup.policy import ARCHIVES, Lock, configured, is_configured, policy
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
        ([("data.warehouse.stores", ["a", "c"])], "data.warehouse.stores: c is not declared under stores"),
        ([("data.warehouse.stores", ["a", "d"])], "data.warehouse.stores.1"),
        ([("data.archive.lock.days", 2556)], "write data.archive.lock: {mode: COMPLIANCE, days: 2557}"),
        ([("data.archive.lock.days", 2600)], "no longer than one interval more"),
        ([("data.archive.lock.mode", "GOVERNANCE")], "an archive needs COMPLIANCE"),
        ([("data.archive.lock", None)], "stores.b.lock, which data.archive takes over, is 7 days"),
        ([("data.archive.stores", ["a", "b"])], "data.archive.stores names one store"),
        ([("data.archive.storage_class", "GLACIER")], "allowed for data.deep_archive alone"),
        ([("data.archive.storage_class", "GLACIAL")], "data.archive.storage_class"),
        ([("data.export.storage_class", "GLACIER_IR"), ("data.export.keep", "80d")], "charged for 90 days at the least, longer than data.export.keep"),
        ([("data.warehouse.lock", {"days": 31})], "data.warehouse.lock.days is 31, longer than data.warehouse.keep"),
        ([("data.deep_archive.keep", "100d"), ("data.deep_archive.lock.days", 100)], "charged for 180 days"),
        ([("data.deep_archive.thaw.tier", "Expedited")], "DEEP_ARCHIVE has Standard, Bulk"),
        ([("data.export.stores", ["a"]), ("data.archive.stores", ["a"]), ("data.deep_archive.stores", ["a"])], "2 copies"),
        ([("stores.a.lifecycle", {"transitions": [{"days": 30}]})], "transitions is not allowed, only unfinished_uploads"),
        ([("stores.a.lifecycle", {"unfinished_uploads": "12h"})], "whole days, 1d to 30d"),
        ([("engine", {"name": "bigquery", "snapshot": "time travel", "every": "1d", "keep": "30d"})], "7 at the most: use table snapshots, or keep less"),
        ([("engine", {"name": "snowflake", "snapshot": "fail-safe", "every": "1d", "keep": "7d"})], "snowflake has time travel, backup set, clone"),
        ([("engine", {"name": "oracle", "snapshot": "x", "every": "1d", "keep": "7d"})], "engine.name"),
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


def test_without_an_archive_there_is_no_deep_one_and_without_an_export_no_engine_alone(
    declared: Callable[..., None], fails: Callable[..., WarehouseError]
) -> None:
    delivered = yaml.safe_load((ROOT / "backup" / "policy.yaml").read_text())["data"]
    declared(("data", {kind: data for kind, data in delivered.items() if kind != "archive"}))
    assert "data.archive is missing" in fails(policy).what
    engine = {"name": "motherduck", "snapshot": "named snapshots", "every": "1d", "keep": "30d"}
    declared(("engine", engine), ("data", {"postgres": delivered["postgres"]}))
    assert "data.export is missing" in fails(policy).what


def test_the_delivered_archives_are_kept_and_locked_for_seven_years_and_may_lie_in_a_third_store(declared: Callable[..., None], setting: Setting) -> None:
    for kind in ARCHIVES:
        data = policy().data[kind]
        assert data.keep == timedelta(days=2557)
        assert policy().placed(kind, data.stores[0]).lock == Lock(mode="COMPLIANCE", days=2557)
    assert policy().placed("export", "b").lock == Lock(days=7)
    declared(("stores.c", {"region": "x", "medium": "object storage", "site": "z"}), ("data.deep_archive.stores", ["c"]), ("data.export.stores", ["a"]))
    assert policy().copies("export") == ["a", "b", "c"]
    assert policy().used == ["a", "b", "c"]
    for name in ("A", "B"):
        setting(f"BACKUP__{name}__ACCESS_KEY_ID", "id")
    with pytest.raises(WarehouseError, match=r"stores\.c\.bucket in .*BACKUP__C__ACCESS_KEY_ID"):
        configured()


def test_prices_are_whole_and_a_thaw_is_charged_as_they_say(tmp_path: Path, fails: Callable[..., WarehouseError]) -> None:
    assert prices.month("DEEP_ARCHIVE", 10**9, 1000) == pytest.approx((1 + 1000 * 32 * 1024 / 1e9) * 0.00099 + 1000 * 8 * 1024 / 1e9 * 0.023)
    assert prices.month("STANDARD", 10**9, 1000, 0.02) == 0.02
    assert prices.thaw("DEEP_ARCHIVE", "Bulk", 10**9, 1, 0)["thaw"] == pytest.approx(0.0025 + 0.000025)
    assert prices.early("DEEP_ARCHIVE", 10**9, 1, -3) == 0
    assert prices.month("a class of another provider", 10**9, 1) == 0.023
    content = yaml.safe_load(prices.PRICES_FILE.read_text())
    for change, says in (({"STANDARD": None}, "STANDARD is missing"), ({"GLACIER": {"gb_month": 1}}, "exactly GLACIER and DEEP_ARCHIVE must be thawed")):
        file = tmp_path / f"{says[:6].strip()}.yaml"
        file.write_text(
            yaml.safe_dump({**content, "classes": {name: one for name, one in {**content["classes"], **change}.items() if one}}, default_flow_style=False)
        )
        assert says in fails(prices.prices, file).what
