"""An archive is one sealed object without personal data in clear, locked as long as it is kept, read by any tool, and comes back equal or not at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pyrage
import pytest
from conftest import ask
from integration.backup_home import fill, trade
from integration.object_stores import Backups

from backup import archive, manifest
from backup.archive import copies_of, take_archive, take_deep_archive
from backup.drill import drill_archive
from backup.encryption import Damaged, WrongKey
from backup.plan import broken_rule, is_due, kept
from backup.policy import configured
from backup.restore_archive import restore_archive
from backup.retention import delete_superfluous
from backup.store import Forbidden, stores
from backup.verify import verify
from cli.main import cli
from privacy import audit, subjects
from privacy.policy import VaultRule, policy
from privacy.vault import Sealer, destroy
from warehouse import storage
from warehouse.errors import StepFailed, UsageError, WarehouseError

Fails = Callable[..., WarehouseError]
Setting = Callable[[str, str | None], None]
YEARS = "every: 7d, keep: 7y"
EXPORT = "{every: 7d, keep: 90d, stores: [a, b]}"
LOCK = "lock: {mode: COMPLIANCE, days: 2557}"


@pytest.fixture
def filled(backups: Backups, home: Path) -> Path:
    backups.write(lock_days=None, export=EXPORT, archive=f"{{{YEARS}, stores: [b], storage_class: GLACIER_IR}}")
    fill(home)
    return home


def _restore(backup: str, into: Path) -> Path:
    return restore_archive(copies_of(backup)[0], into).into


def _lock(backups: Backups) -> None:
    deep = f"{{every: 30d, keep: 7y, stores: [b], {LOCK}}}"
    backups.write(lock_days=7, export=EXPORT, archive=f"{{{YEARS}, stores: [b], {LOCK}}}", deep_archive=deep)


def test_an_archive_is_one_object_that_any_tool_reads(filled: Path, tmp_path: Path, backups: Backups) -> None:
    taken = take_archive(0)
    assert [key.rpartition("/")[2] for key in backups.keys("b", "archive/packs")] == [f"{taken.backup.id}-0000.tar.zst.age"]
    into = _restore(taken.backup.id, tmp_path / "back")
    found = pq.read_table(into / "raw_postgres" / "orders.parquet").sort_by("id").to_pylist()
    assert [(row["id"], row["amount"]) for row in found] == ask("SELECT id, amount FROM raw_postgres.orders ORDER BY id")
    packages = pq.read_table(into / "landing" / "packages.parquet").to_pylist()
    assert [(one["table"], one["rows"], one["is_loaded"]) for one in packages] == [("public.orders", 2000, True)]
    assert pq.read_metadata(into / "sqlmesh_state" / "main.snapshots.parquet").num_rows == 1000
    said = json.loads((into / "schema.json").read_text())["tables"]
    assert said["raw_postgres.orders"]["columns"]["amount"] == "DECIMAL(18,2)"
    assert {(into / one["file"]).exists() for one in said.values()} == {True}
    assert "raw_<source>" in (into / "README.md").read_text()
    assert verify("archive", everything=True).problems == []
    assert not list((filled / "backup").glob("staging/*"))
    assert not list(tmp_path.glob(".back*"))


def test_what_is_personal_is_not_in_it_and_the_manifest_says_so(filled: Path, tmp_path: Path) -> None:
    with storage.open_warehouse() as connection:
        connection.execute("CREATE SCHEMA raw_zendesk")
        connection.execute("CREATE TABLE raw_postgres.users (id BIGINT, email_hash VARCHAR, phone_masked VARCHAR, created_at TIMESTAMPTZ, city VARCHAR)")
        connection.execute("CREATE TABLE raw_postgres.orders__changes (id BIGINT, user_id BIGINT, amount DECIMAL(18, 2))")
        connection.execute("CREATE TABLE raw_zendesk.tickets (id BIGINT, requester_id BIGINT, subject VARCHAR, opened_at TIMESTAMPTZ, follower_ids VARCHAR)")
        connection.execute("CREATE TABLE marts.customers (customer_key VARCHAR, billing_email_hash VARCHAR, orders BIGINT, first_name VARCHAR)")
        for table in ("raw_postgres.users", "raw_postgres.orders__changes", "raw_zendesk.tickets", "marts.customers"):
            connection.execute(f'INSERT INTO {table} BY NAME SELECT 1 AS "{"orders" if "marts" in table else "id"}"')
    taken = take_archive(0)
    assert taken.backup.personal == "dropped"
    into = _restore(taken.backup.id, tmp_path / "back")
    columns = {path.relative_to(into).as_posix(): pq.read_schema(path).names for path in into.glob("*/*.parquet")}
    assert columns["raw_postgres/users.parquet"] == ["created_at"], "what an erasure leaves of a person"
    assert columns["raw_postgres/orders__changes.parquet"] == ["id", "amount"]
    assert columns["raw_zendesk/tickets.parquet"] == ["id", "opened_at"]
    assert columns["marts/customers.parquet"] == ["orders"]
    said = json.loads((into / "schema.json").read_text())
    assert said["tables"]["marts.customers"]["dropped"] == ["billing_email_hash", "customer_key", "first_name"]
    assert "not in it" in (into / "README.md").read_text()


def test_with_a_vault_what_is_personal_is_sealed_and_goes_with_the_person_s_key(
    filled: Path, tmp_path: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting("PRIVACY__VAULT_KEY", "the master key of a test, longer than thirty-two")
    monkeypatch.setattr(policy(), "vault", VaultRule(readers=[audit.who()]))
    with storage.open_warehouse() as connection:
        connection.execute("CREATE TABLE raw_postgres.users (id BIGINT, email_hash VARCHAR, created_at TIMESTAMPTZ, tags VARCHAR[])")
        connection.execute("INSERT INTO raw_postgres.users VALUES (1, repeat('a', 64), TIMESTAMPTZ '2026-01-01', ['x', 'y']), (2, repeat('b', 64), NULL, NULL)")
        connection.execute("CREATE TABLE marts.customers AS SELECT 1 AS orders, 'postgres:1' AS customer_key")
    taken = take_archive(0)
    assert taken.backup.personal == "sealed"
    into = _restore(taken.backup.id, tmp_path / "back")
    assert pq.read_schema(into / "marts" / "customers.parquet").names == ["orders"], "what no key of a person could take away is not in it"
    held = pq.read_table(into / "raw_postgres" / "users.parquet")
    assert held.column_names == ["id_sealed", "email_hash_sealed", "created_at", "tags_sealed"]
    assert b"aaaaaaaa" not in (into / "raw_postgres" / "users.parquet").read_bytes()
    with storage.scratch() as connection:
        sealer = Sealer(connection)
        opened = sealer.unseal(held, "postgres", "users", purpose="a test").select(["id", "email_hash", "tags"]).to_pylist()
        assert opened == [{"id": 1, "email_hash": "a" * 64, "tags": '["x","y"]'}, {"id": 2, "email_hash": "b" * 64, "tags": None}]
        destroy([(subjects.tag("postgres", "1"), datetime.now(UTC).isoformat())])
        assert sealer.unseal(held, "postgres", "users", purpose="a test").column("id").to_pylist() == [None, 2]


def test_it_is_locked_for_all_its_years_when_it_was_proved_and_not_before(
    filled: Path, backups: Backups, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lock(backups)
    monkeypatch.setattr(archive.pack, "verify", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take_archive(0)
    monkeypatch.undo()
    store = stores("archive")["b"]
    (left,) = store.held("archive/packs/").values()
    assert store.head(left).locked_until is None, "what a run that broke off left can be deleted"
    assert manifest.listed(store, "archive") == {}
    taken = take_archive(0)
    deep = take_deep_archive()
    for what, one in (("archive", taken.backup), ("deep_archive", deep.backup)):
        for held in (store.held(f"{what}/packs/")[one.packs[0].key], manifest.listed(store, one.what)[one.id]):
            head = store.head(held)
            assert head.lock_mode == "COMPLIANCE"
            assert head.locked_until
            assert head.locked_until - datetime.now(UTC) > timedelta(days=2556)
            assert isinstance(fails(store.delete, held), Forbidden)
    assert verify("archive", everything=True).problems == []
    assert verify("deep_archive", everything=True).problems == []


def test_an_archive_that_is_not_locked_as_the_policy_says_is_found(filled: Path, backups: Backups) -> None:
    take_archive(0)
    _lock(backups)
    (problem,) = verify("archive", everything=False).problems
    assert "locked not at all; the policy says until 20" in problem.said


def test_neither_the_last_good_one_nor_a_locked_one_is_deleted(filled: Path, backups: Backups, setting: Setting) -> None:
    ids = []
    short = "{every: 7d, keep: 14d, stores: [b]}"
    for lock, days in ((None, 200), (1, 100), (None, 50), (None, 0)):
        backups.write(lock_days=None, export=EXPORT, archive=short)
        setting("WAREHOUSE_NOW", (datetime.now(UTC) - timedelta(days=days)).isoformat())
        ids.append(take_archive(0).backup.id)
        if lock:
            setting("WAREHOUSE_NOW", None)
            client, store = backups.servers["b"].client("b"), stores("archive")["b"]
            for held in (manifest.listed(store, "archive")[ids[-1]], *(one for key, one in store.held("archive/packs/").items() if ids[-1] in key)):
                at = {"Bucket": store.bucket, "Key": store.full_key(held.key), "VersionId": held.version}
                client.put_object_retention(**at, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)})
    store = stores("archive")["b"]
    assert set(manifest.listed(store, "archive")) == {ids[1], *ids[2:]}, "the first is superfluous, the second too but locked"
    for key in [key for key in store.held("archive/packs/") if ids[3] in key]:
        backups.servers["b"].client("b").delete_object(Bucket=store.bucket, Key=store.full_key(key), VersionId=store.held(key)[key].version)
    backups.write(lock_days=None, export=EXPORT, archive="{every: 1h, keep: 2h, stores: [b]}")
    with pytest.raises(StepFailed, match="lacks"):
        delete_superfluous(store, "archive", configured().data["archive"])
    assert set(manifest.listed(store, "archive")) == set(ids[1:])


def test_the_deep_archive_is_the_same_sealed_object_and_survives_the_loss_of_the_other(filled: Path, backups: Backups, tmp_path: Path, fails: Fails) -> None:
    backups.write(lock_days=None, archive=f"{{{YEARS}, stores: [b]}}", deep_archive="{every: 30d, keep: 7y, stores: [a]}")
    assert isinstance(fails(take_deep_archive), UsageError), "nothing to copy"
    taken = take_archive(0)
    deep = take_deep_archive()
    assert (deep.backup.id, deep.backup.packs[0].sha256) == (taken.backup.id, taken.backup.packs[0].sha256)
    assert "already" in fails(take_deep_archive).what
    assert [copy.kind for copy in copies_of(taken.backup.id)[0]] == ["archive", "deep_archive"]
    backups.flip("b", backups.keys("b", "archive/packs")[0])
    done = restore_archive(copies_of(taken.backup.id)[0], tmp_path / "back")
    assert done.stores == ["a"]
    assert "is not what was written" in done.notes[0]
    assert isinstance(fails(take_deep_archive), UsageError)
    trade(filled, 1)
    take_archive(0)
    backups.flip("b", backups.keys("b", "archive/packs")[-1])
    assert isinstance(fails(take_deep_archive), Damaged), "what is damaged is not copied"
    assert len(backups.keys("a", "deep_archive/packs")) == 1


def test_nothing_comes_back_with_a_wrong_key_a_turned_bit_or_a_tampered_manifest(
    filled: Path, backups: Backups, tmp_path: Path, setting: Setting, fails: Fails
) -> None:
    taken = take_archive(0)
    setting("BACKUP__IDENTITIES", str(pyrage.x25519.Identity.generate()))
    wrong = fails(_restore, taken.backup.id, tmp_path / "back")
    assert isinstance(wrong, WrongKey)
    assert "nothing was asked for" in wrong.what
    setting("BACKUP__IDENTITIES", str(backups.identity))
    (key,) = backups.keys("b", "archive/packs")
    backups.flip("b", key)
    assert isinstance(fails(_restore, taken.backup.id, tmp_path / "back"), Damaged)
    backups.flip("b", key)
    assert _restore(taken.backup.id, tmp_path / "back").exists()
    assert isinstance(fails(_restore, taken.backup.id, tmp_path / "back"), UsageError), "it is there"
    store, path = stores("archive")["b"], manifest.key_of("archive", taken.backup.id)
    client = backups.servers["b"].client("b")
    first = {name: table.model_copy(update={"rows": table.rows + 1}) for name, table in taken.backup.tables.items()}
    for content in (store.read(store.held(path)[path])[:-1] + b"!", manifest.encode(taken.backup.model_copy(update={"tables": first}))):
        client.delete_object(Bucket=store.bucket, Key=store.full_key(path), VersionId=store.held(path)[path].version)
        client.put_object(Bucket=store.bucket, Key=store.full_key(path), Body=content)
        assert isinstance(fails(_restore, taken.backup.id, tmp_path / "again"), StepFailed)
        assert not (tmp_path / "again").exists()


def test_a_cut_download_goes_on_where_it_was(filled: Path, backups: Backups, tmp_path: Path) -> None:
    taken = take_archive(0)
    (one,), into = taken.backup.packs, tmp_path / "back"
    downloaded = tmp_path / ".back.download" / one.sha256
    store = stores("archive")["b"]
    content = store.read(store.held(one.key)[one.key])
    downloaded.parent.mkdir()
    downloaded.write_bytes(content[: len(content) // 2])
    asked: list[str] = []
    copies = copies_of(taken.backup.id)[0]
    copies[0].store.client.meta.events.register("before-send.s3.GetObject", lambda request, **_: asked.append(request.headers.get("Range", b"whole").decode()))
    assert restore_archive(copies, into).stores == ["b"]
    assert asked == [f"bytes={len(content) // 2}-"]
    (tmp_path / ".again.download").mkdir()
    (tmp_path / ".again.download" / one.sha256).write_bytes(b"\0" + content[1:-1])  # what lay there is damaged: it is fetched anew
    assert restore_archive(copies, tmp_path / "again").tables == len(taken.backup.tables)


def test_the_drill_restores_it_and_an_archive_counts_as_a_copy(filled: Path, backups: Backups) -> None:
    backups.write(lock_days=None, export="{every: 7d, keep: 90d, stores: [a]}", archive=f"{{{YEARS}, stores: [b]}}")
    every = {what: kept(what) for what in configured().data}
    assert "copies" in str(broken_rule("archive", every["archive"], every))
    taken = take_archive(0)
    assert [(one.failed, one.tables) for one in drill_archive("archive", 1)] == [(None, len(taken.backup.tables))]
    assert not list((filled / "backup").glob("drill_archive/*"))
    from backup.export import take_export

    take_export(0)
    every = {what: kept(what) for what in configured().data}
    assert [broken_rule(what, found, every) for what, found in every.items()] == [None, None], "the machine, A and B"
    assert not is_due("archive", every["archive"])


def test_the_command_line_archives_plans_tells_the_cost_and_brings_it_back(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["backup", "run", "export"], standalone_mode=False)
    cli.main(["backup", "run", "archive", "--due"], standalone_mode=False)
    cli.main(["backup", "run", "archive", "--due"], standalone_mode=False)
    cli.main(["backup", "plan"], standalone_mode=False)
    out = capsys.readouterr().out
    for told in ("not due", "GLACIER_IR", "archive is not locked in store b", "what is personal is not in it", "list prices as of 20"):
        assert told in out
    cli.main(["backup", "plan", "--json"], standalone_mode=False)
    planned = {one["what"]: one for one in json.loads(capsys.readouterr().out) if one["store"] == "b"}["archive"]
    assert planned["usd_a_month"] > 0
    assert planned["early_usd"] > planned["usd_a_month"], "its class is charged for 90 days"
    backup = planned["backups"][0]
    cli.main(["restore", "archive", backup, "--dry-run"], standalone_mode=False)
    assert "nothing was asked for" in capsys.readouterr().out
    cli.main(["restore", "archive", backup, "--into", str(tmp_path / "back")], standalone_mode=False)
    assert (tmp_path / "back" / "marts" / "order_facts.parquet").exists()
    cli.main(["drill", "archive"], standalone_mode=False)
    cli.main(["status"], standalone_mode=False)
    assert "drill archive" in capsys.readouterr().out
