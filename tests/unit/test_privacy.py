"""Privacy on load: what is personal is recognised and replaced before anything is written."""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from privacy import free_text, functions, policy, pseudonyms, record, subjects
from privacy.chain import Chain
from warehouse.errors import UsageError, WarehouseError
from warehouse.settings import ROOT

KEY_TEXT = "thirty-two"


def test_the_policy_of_the_project_is_valid_and_covers_the_demo() -> None:
    rules = policy.policy().rules("postgres", "users")
    assert {name: rule.action for name, rule in rules.items()} == {"email": "hmac", "phone": "mask", "ssn": "redact"}
    assert policy.policy().rules("postgres", "orders") == {}


def ask(columns: dict[str, str], parameters: dict[str, bytes], values: pa.Table) -> dict[str, list[object]]:
    """What SQL columns give for rows, with their parameters bound."""
    with duckdb.connect() as connection:
        connection.register("rows", values)
        chosen = ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())
        used = {name: value for name, value in parameters.items() if f"${name}" in chosen}
        return connection.execute(f"SELECT {chosen} FROM rows", used).to_arrow_table().to_pydict()


@pytest.mark.parametrize("key", [b"k" * 32, b"short", b"x" * 64, b"longer than a block of SHA-256, which is sixty-four bytes, by some more"])
def test_keyed_hashes_are_hmac_sha256_and_null_stays_null(key: bytes) -> None:
    texts = ["a@b.co", None, "ä€𝄞", "", "x" * 5000]
    expected = [None if text is None else hmac.new(key, text.encode(), hashlib.sha256).hexdigest() for text in texts]
    got = ask({"h": pseudonyms.keyed_hash("t")}, pseudonyms.hmac_parameters(key), pa.table({"t": texts}))
    assert got["h"] == expected


def test_a_hundred_thousand_values_are_hashed_as_python_hashes_them(home: Path) -> None:
    """Normalised emails, also those that are none: Unicode, empty, null, spaces of every kind around them."""
    around = ["", " ", "\t", " \r\n", "\x0b\x0c ", "\x00", "\u00a0", "\x1f"]
    inner = ["user{}@Example.COM", "ÄÖß{}@exämple.de", "İ{}@x.tr", "𝄞{}", "", "ǅ{}"]
    texts = [None if number % 997 == 0 else around[number % 8] + inner[number % 6].format(number) + around[(number // 8) % 8] for number in range(100_000)]
    with duckdb.connect() as connection:
        connection.register("rows", pa.table({"t": texts, "n": range(len(texts))}))
        asked = f"lower(trim(t, {pseudonyms._SPACE})) AS plain, {pseudonyms.keyed_hash(pseudonyms.normalised_email('t'))} AS hash"
        got = connection.execute(f"SELECT {asked} FROM rows ORDER BY n", pseudonyms.parameters()).fetchall()
    key = pseudonyms.settings().hmac_key()
    assert [hashed for _, hashed in got] == [None if plain is None else hmac.new(key, plain.encode(), hashlib.sha256).hexdigest() for plain, _ in got]
    ascii_only = [(text, plain) for text, (plain, _) in zip(texts, got, strict=True) if text is not None and text.isascii()]
    assert all(plain == text.strip(" \t\n\v\f\r").lower() for text, plain in ascii_only)
    assert len(ascii_only) > 20_000


def test_a_hashed_telephone_number_is_the_same_however_it_is_written(rules: Callable[[str], None]) -> None:
    rules("mobile: {class: phone, action: hmac}")
    numbers = ["+1 (415) 555-2671", "415-555-2671", " 4155552671 ", "+49 30 901820", "no number", "12", None]
    made = pseudonyms.protect("crm", "people", {"mobile": "mobile"}, texts=["mobile"])
    with duckdb.connect() as connection:
        functions.bind(connection, "crm")
        connection.register("rows", pa.table({"mobile": numbers, "n": range(len(numbers))}))
        chosen = ", ".join(f"{sql} AS {name}" for name, sql in made.columns.items())
        got = connection.execute(f"SELECT {chosen} FROM rows ORDER BY n", made.parameters).fetchall()
    expected = ["+14155552671", "+14155552671", "+14155552671", "+4930901820", "no number", "12", None]
    assert [row[0] for row in got] == [text and subjects.hashed(text) for text in expected]
    assert [row[1] for row in got] == [True, True, True, True, False, False, None]


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> Callable[[str], None]:
    def declare(text: str) -> None:
        file = tmp_path / "policy.yaml"
        file.write_text("columns:\n  crm.people:\n" + "".join(f"    {line}\n" for line in text.splitlines()))
        monkeypatch.setattr(policy, "POLICY_FILE", file)

    return declare


def protected(batch: pa.Table) -> dict[str, list[object]]:
    texts = [field.name for field in batch.schema if pa.types.is_string(field.type)]
    made = pseudonyms.protect("crm", "people", {name: f'"{name}"' for name in batch.column_names}, texts=texts)
    return ask(made.columns, made.parameters, batch)


def test_every_action_leaves_the_rows_and_takes_the_value(rules: Callable[[str], None]) -> None:
    rules(
        "mail: {class: email, action: hmac}\nmobile: {class: phone, action: mask}\nssn: {class: ssn, action: redact}\n"
        "street: {class: address, action: drop}\nbadge: {class: id, action: hmac}\nrole: {class: none, action: keep}"
    )
    batch = pa.table(
        {
            "id": [1, 2, 3],
            "mail": [" A.B@Example.com ", None, "not an email"],
            "mobile": ["+1 (555) 010-4477", None, "123"],
            "ssn": ["900-12-3456", None, ""],
            "street": ["x", "y", "z"],
            "badge": [42, None, 43],
            "role": ["admin", None, "user"],
        }
    )
    done = protected(batch)
    assert list(done) == ["id", "mail_hash", "is_mail_valid", "mobile_masked", "ssn_redacted", "badge_hash", "role", "_privacy_key_id"]
    assert done["mail_hash"][0] == hmac.new(pseudonyms.settings().hmac_key(), b"a.b@example.com", hashlib.sha256).hexdigest()
    assert done["is_mail_valid"] == [True, None, False]
    assert done["mobile_masked"] == ["********77", None, "********"]
    assert done["ssn_redacted"] == ["[redacted]", None, "[redacted]"]
    assert done["badge_hash"][1] is None
    assert done["role"] == ["admin", None, "user"]
    assert done["_privacy_key_id"] == ["k1", "k1", "k1"]


def test_the_key_is_bound_and_never_in_sql_text(rules: Callable[[str], None]) -> None:
    rules("mail: {class: email, action: hmac}")
    made = pseudonyms.protect("crm", "people", {"mail": "mail"}, texts=["mail"])
    assert KEY_TEXT not in str(made.columns)
    assert set(made.parameters) == {"hmac_inner", "hmac_outer"}


@pytest.mark.parametrize(("value", "kind"), [("write to jo@example.com", "email"), ("x 900-12-3456 y", "ssn")])
def test_a_personal_value_in_an_undeclared_text_column_stops_the_stream(rules: Callable[[str], None], value: str, kind: str) -> None:
    rules("known: {class: none, action: keep}")
    made = pseudonyms.protect("crm", "people", {"known": "known", "it's": '"it\'s"'}, texts=["it's", "known"])
    assert ask(made.columns, {}, pa.table({"known": [value], "it's": ["a - b @ c"]})) == {"known": [value], "it's": ["a - b @ c"]}
    with pytest.raises(duckdb.Error, match=f"{pseudonyms.PERSONAL_ERROR}: {kind} in it's") as raised:
        ask(made.columns, {}, pa.table({"known": ["fine"], "it's": [value]}))
    assert value not in str(raised.value)


def test_a_personal_key_is_merged_by_its_hash(rules: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    rules("mail: {class: email, action: hmac}\nssn: {class: ssn, action: redact}")
    assert pseudonyms.keyed_name("crm", "people", "mail") == "mail_hash"
    assert pseudonyms.keyed_name("crm", "people", "id") == "id"
    assert "crm.people.ssn is part of the primary key" in fails(pseudonyms.keyed_name, "crm", "people", "ssn").what


@pytest.mark.parametrize(
    ("mail", "is_valid"),
    [
        ("jo@example.com", True),
        ("JO+tag@sub.example.co.uk", True),
        ("o'hara@example.ie", True),
        ("jo@localhost", False),
        ("jo@@example.com", False),
        ("jo example.com", False),
        ("@example.com", False),
        ("jo@example.", False),
        ("jo@-example.com", False),
        ("", False),
        ("a b@example.com", False),
    ],
)
def test_the_shape_of_an_email_is_judged(rules: Callable[[str], None], mail: str, is_valid: bool) -> None:
    rules("mail: {class: email, action: hmac}")
    assert protected(pa.table({"mail": [mail]}))["is_mail_valid"] == [is_valid]


PERSONAL_NAMES = ["email", "user_email", "EmailAddress", "e_mail", "phone", "mobile_number", "ssn", "first_name", "lastName", "dob", "ip_address", "iban"]


@pytest.mark.parametrize("name", PERSONAL_NAMES)
def test_a_name_that_means_personal_data_is_recognised(rules: Callable[[str], None], fails: Callable[..., WarehouseError], name: str) -> None:
    rules("known: {class: none, action: keep}")
    error = fails(policy.refuse_undeclared, "crm", "people", pa.table({name: [None]}))
    assert isinstance(error, UsageError)
    assert f"crm.people.{name}" in error.what


@pytest.mark.parametrize("name", ["id", "username_length", "emails_sent_count_total", "country", "ship", "status", "telemetry", "recipe", "script"])
def test_an_ordinary_name_is_not(rules: Callable[[str], None], name: str) -> None:
    rules("known: {class: none, action: keep}")
    if name != "emails_sent_count_total":
        policy.refuse_undeclared("crm", "people", pa.table({name: ["x"]}))
    else:  # a counter of emails is named like an email: the operator declares it once, as not personal
        rules("emails_sent_count_total: {class: none, action: keep}")
        policy.refuse_undeclared("crm", "people", pa.table({name: ["x"]}))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["fine", "see jo@example.com"], "email"),
        (["900-12-3456"], "ssn"),
        (["+49 30 1234567", "x", "y", "z"], "phone"),
        (["2024-01-02", "12.50", "ORD-000123"], None),
        (["555-1234-99", "order 900-12-34567"], None),
        ([None, None], None),
    ],
)
def test_values_that_look_personal_are_recognised_whatever_the_name(rules: Callable[[str], None], values: list[str | None], kind: str | None) -> None:
    rules("known: {class: none, action: keep}")
    batch = pa.table({"remark": pa.array(values, pa.string())})
    if kind is None:
        policy.refuse_undeclared("crm", "people", batch)
        return
    with pytest.raises(UsageError, match=f"\\({kind}, by its values\\)") as raised:
        policy.refuse_undeclared("crm", "people", batch)
    assert all(value not in str(raised.value) for value in values if value and len(value) > 4)


def test_a_declared_column_that_is_gone_is_an_error(rules: Callable[[str], None], fails: Callable[..., WarehouseError]) -> None:
    rules("mail: {class: email, action: hmac}")
    assert "crm.people.mail" in fails(pseudonyms.protect, "crm", "people", {"id": "id"}, texts=[]).what


def test_scrubbed_text_keeps_its_column_and_a_connection_without_the_function_fails(rules: Callable[[str], None]) -> None:
    rules("note: {class: free_text, action: scrub}")
    batch = pa.table({"note": ["write to a@example.com", None, "fine"]})
    made = pseudonyms.protect("crm", "people", {"note": "note"}, texts=["note"])
    with duckdb.connect() as connection:
        connection.register("rows", batch)
        query = f"SELECT {made.columns['note']} AS note FROM rows"
        with pytest.raises(duckdb.CatalogException):
            connection.execute(query)
        free_text.bind(connection, "another")
        with pytest.raises(duckdb.CatalogException):
            connection.execute(query)
        free_text.bind(connection, "crm")
        assert connection.execute(query).fetchall() == [("write to [email]",), (None,), ("fine",)]


def test_a_record_shows_what_was_edited_taken_out_or_cut_off(home: Path, fails: Callable[..., WarehouseError]) -> None:
    chain = Chain(home / "record.jsonl", home / "elsewhere" / "record.anchor")
    assert chain.problems() == []
    for what in ("a", "b", "c"):
        chain.append({"what": what})
    whole, anchored = chain.path.read_bytes(), chain.anchor.read_bytes()
    lines = whole.splitlines(keepends=True)
    broken = {
        "line 2 was edited": whole.replace(b'"b"', b'"x"'),
        "line 2 has the number 3": lines[0] + lines[2],
        "its tail was cut off: 3 lines were anchored, 2 are there": lines[0] + lines[1],
        "its tail was cut off: 3 lines were anchored, 0 are there": b"",
        "line 3 is not readable": whole.replace(lines[2], b"no json\n"),
    }
    for problem, content in broken.items():
        chain.path.write_bytes(content)
        assert chain.problems()[0].startswith(problem)
        assert problem in fails(chain.append, {"what": "d"}).what
    chain.path.write_bytes(whole)
    chain.anchor.write_bytes(anchored.replace(b'"lines": 3', b'"lines": 2'))
    assert "anchor was edited" in chain.problems()[0]
    chain.anchor.write_bytes(anchored)
    chain.path.write_bytes(whole + b'{"number": 4, "wh')  # a kill in the middle of a line
    assert chain.append({"what": "d"}) == 4
    assert [line["what"] for line in chain.lines()] == ["a", "b", "c", "d"]


def test_every_table_with_personal_columns_says_whose_its_rows_are() -> None:
    apart = {"stripe.disputes", "zendesk.organizations", "google_analytics.pages", "google_analytics.landing_pages"}
    assert set(policy.policy().columns) - set(policy.policy().subjects) == apart, "evidence is redacted; the others hold no persons"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{erase: remove}", "says nothing about whose the rows are"),
        ("{of: {user_id: crm}, erase: blank}", "only with a reason"),
        ("{of: {user_id: nobody}, erase: remove}", "no table has persons of the kind 'nobody'"),
        ("{within: {ticket_id: crm.tickets}, erase: remove}", "crm.tickets is not declared"),
    ],
)
def test_a_rule_of_subjects_that_cannot_hold_is_refused(tmp_path: Path, fails: Callable[..., WarehouseError], rule: str, problem: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"columns: {{}}\nsubjects:\n  crm.people: {{person: crm, erase: remove}}\n  crm.orders: {rule}\n")
    assert problem in fails(policy.policy, file).what


@pytest.mark.parametrize("text", ["42", "user:", "nobody:42", ""])
def test_a_subject_that_names_nobody_is_refused(home: Path, fails: Callable[..., WarehouseError], text: str) -> None:
    assert "user:…" in fails(subjects.parse, text).mend


def test_the_record_of_processing_is_made_of_the_policy_in_force() -> None:
    assert (ROOT / "docs" / "privacy.md").read_text() == record.document(), "make it anew: `warehouse privacy record --out docs/privacy.md`"
    sources = {table.split(".")[0] for table in policy.policy().columns}
    assert sources == set(policy.policy().processing), "every source with personal data says why it is held"
