"""Declared files: errors name file, key, what was found, what is allowed, and the mend."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.postgres import PostgresDeclaration
from privacy.policy import Policy
from warehouse.declared import read
from warehouse.errors import DeclarationError, WarehouseError

GOOD = "tables:\n  shop.users: {primary_key: id, cursor: updated_at}\n"


def declare(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "postgres.yaml"
    file.write_text(text)
    return file


def test_a_table_is_three_lines(tmp_path: Path) -> None:
    declared = read(declare(tmp_path, "tables:\n  shop.users:\n    primary_key: id\n    cursor: updated_at\n"), PostgresDeclaration)
    assert declared.tables["shop.users"].primary_key == ["id"]
    assert (declared.schedule, declared.lag.total_seconds(), declared.freshness.total_seconds()) == ("hourly", 600, 21600)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "schedul: hourly\n", ["schedul", "not known", "schedule"]),
        (GOOD + "schedule: yearly\n", ["schedule", "hourly", "yearly"]),
        (GOOD + "freshness: six hours\n", ["freshness", "six hours", "6h"]),
        (GOOD + "lag: 10\n", ["lag", "10m"]),
        ("schedule: hourly\n", ["tables", "missing"]),
        ("tables:\n  shop.users: {primary_key: []}\n", ["tables.shop.users.primary_key"]),
        ("tables:\n  shop.*: {name: all}\n", ["several tables"]),
        (GOOD + "max_deleted_share: 5\n", ["max_deleted_share", "1"]),
        ("tables:\n  shop.users: {columns: {a: {on_unrepresentable: zero}}}\n", ["on_unrepresentable", "null"]),
        ("tables:\n  shop.users: {primary_key: id, cursor: updated_at, where: x}\n", ["where", "not known", "exclude"]),
        ("tables:\n  users: {primary_key: id, cursor: updated_at}\n", ["schema.table"]),
        ("tables:\n  shop.users: {primary_key: id, cursor: a}\n  crm.users: {primary_key: id, cursor: a}\n", ["raw_postgres.users", "name:"]),
        ("tables:\n  shop.users: {primary_key: id, cursor: a}\n  shop.users: {primary_key: id, cursor: a}\n", ["line 3", "twice"]),
        ("tables: [\n", ["line", "not valid YAML"]),
        ("tables:\n\tshop.users: x\n", ["line 2", "not valid YAML"]),
        ("? [a, b]\n: c\n", ["plain word"]),
        ("", ["tables", "missing"]),
    ],
)
def test_a_wrong_declaration_names_file_key_and_what_is_allowed(tmp_path: Path, fails: Callable[..., WarehouseError], text: str, says: list[str]) -> None:
    error = fails(read, declare(tmp_path, text), PostgresDeclaration)
    assert isinstance(error, DeclarationError)
    assert error.exit_code == 2
    assert error.mend
    for word in ["postgres.yaml", *says]:
        assert word in error.what


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path, fails: Callable[..., WarehouseError]) -> None:
    assert "missing" in fails(read, tmp_path / "gone.yaml", PostgresDeclaration).what
    (tmp_path / "latin.yaml").write_bytes(b"tables: \xff\xfe")
    assert "UTF-8" in fails(read, tmp_path / "latin.yaml", PostgresDeclaration).what


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    import os

    file = declare(tmp_path, GOOD)
    assert read(file, PostgresDeclaration).schedule == "hourly"
    file.write_text(GOOD + "schedule: daily\n")
    os.utime(file, ns=(1, 1))
    assert read(file, PostgresDeclaration).schedule == "daily"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("columns:\n  postgres.users:\n    email: {class: email, action: hash}\n", ["email.action", "hmac"]),
        ("columns:\n  postgres.users:\n    email: {class: post, action: hmac}\n", ["email.class", "ssn"]),
        ("columns:\n  postgres.users:\n    email: {class: email, action: keep}\n", ["why"]),
        ("columns:\n  postgres.users:\n    email: {class: email}\n", ["action", "missing"]),
    ],
)
def test_a_wrong_policy_names_column_and_what_is_allowed(tmp_path: Path, fails: Callable[..., WarehouseError], text: str, says: list[str]) -> None:
    error = fails(read, declare(tmp_path, text), Policy)
    for word in says:
        assert word in error.what
