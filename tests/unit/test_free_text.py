"""Free text loses what identifies people, and nothing else."""

import pytest

from privacy.free_text import scrub, scrub_identifiers, scrub_tree


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to Jo.Doe+x@mail.example.com, please", "write to [email], please"),
        ("call +1 555 765 4321 or +49 30 901820", "call [phone] or [phone]"),
        ("call (202) 456-1414 today", "call [phone] today"),
        ("my card is 4242 4242 4242 4242.", "my card is [card]."),
        ("card 4242-4242-4242-4242", "card [card]"),
        ("amex 378282246310005!", "amex [card]!"),
        ("ssn 900-12-3456, SSN: 123456789", "ssn [ssn], SSN: [ssn]"),
        ("it is 123 45 6789", "it is [ssn]"),
        ("four: a@b.co, +15557654321, 900-01-0001, 5555555555554444", "four: [email], [phone], [ssn], [card]"),
        ("ä@example.com 𝄞 +15557654321", "[email] 𝄞 [phone]"),
    ],
)
def test_what_identifies_is_replaced(text: str, left: str) -> None:
    assert scrub(text, ["US"]) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no number at all",
        "order 69659 of 1997-12-25",
        "4242 4242 4242 4243",
        "version 1.2.3.4",
        "$1,234.56",
        "tracking 1Z999AA10123456784",
        "10:30 - 11:45, room 4",
    ],
)
def test_what_does_not_identify_stays(text: str) -> None:
    assert scrub(text, ["US"]) == text


def test_numbers_without_a_plus_are_those_of_the_countries_declared() -> None:
    assert scrub("ruf 030 901820 an", ["DE"]) == "ruf [phone] an"
    assert scrub("ruf 030 901820 an", ["US"]) == "ruf 030 901820 an"


def test_a_scrubbed_text_is_not_changed_again() -> None:
    once = scrub("a@example.com +15557654321 900-01-0001 4242424242424242", ["US"])
    assert scrub(once, ["US"]) == once


def test_trees_lose_personal_keys_and_what_is_in_their_texts_and_ids_stay() -> None:
    tree = {"phone": "1", "plan": "gold", "notes": ["ask a@example.com", {"date_of_birth": "x", "n": 7, "email": None}]}
    assert scrub_tree(tree) == {"phone": "[redacted]", "plan": "gold", "notes": ["ask [email]", {"date_of_birth": "[redacted]", "n": 7, "email": None}]}
    assert scrub_identifiers("4155552671") == "4155552671"
    assert scrub_identifiers("a@example.com/900-01-0001") == "[email]/[ssn]"
