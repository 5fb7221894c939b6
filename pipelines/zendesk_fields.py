"""Custom ticket fields as columns: `field_<id>_<title at first sight>`, the same for ever, whatever the field is called later."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.zendesk_rows import Object, Type, converted

_TYPES: dict[str, Type] = {"checkbox": "boolean", "integer": "bigint", "decimal": "decimal", "date": "date", "multiselect": "json"}
_NO_PROSE = {"checkbox", "integer", "decimal", "date", "tagger", "multiselect", "lookup"}
_PERSONAL_TYPES = {"partialcreditcard": "card"}
_NAMED_BY_ID = re.compile(r"field_(\d+)")
_DECLARED = re.compile(r"field_(\d+)(?:_|$)")
_LONGEST_SLUG = 40


@dataclass(frozen=True)
class CustomField:
    """One field: its column, its type, and whether its values are prose or never leave Zendesk."""

    name: str
    kind: Type
    is_prose: bool
    is_hidden: bool

    @property
    def column(self) -> str:
        """Its column before the policy is applied."""
        return f"{self.name}_redacted" if self.is_hidden else self.name


class CustomFields:
    """The custom fields of an account.

    Args:
        definitions: Zendesk's ticket fields, system fields among them.
        known: the custom fields that the warehouse knows, with their `column_name`, which stays; also those not defined any more.
        held: the columns of `raw_zendesk.tickets`.
    """

    def __init__(self, definitions: Sequence[Object], known: Sequence[Object], held: Iterable[str]) -> None:
        from privacy.policy import kind_by_name, policy

        self._rules = policy().rules("zendesk", "tickets")
        declared = {int(found[1]): name for name in self._rules if (found := _DECLARED.match(name))}
        self._named = {int(found[1]): name for name in held if (found := _NAMED_BY_ID.fullmatch(name))}
        self._named |= {int(one["id"]): str(one["column_name"]) for one in known} | declared
        self._fields: dict[int, CustomField] = {}
        self._defined = {int(one["id"]) for one in definitions if is_custom(one)} | set(declared)
        self._shown = set(self._defined)
        self.findings: list[str] = []
        self.unreadable: dict[str, int] = {}
        for one in [*known, *definitions]:
            if not is_custom(one):
                continue
            number, type_ = int(one["id"]), str(one.get("type"))
            is_new = number not in self._named
            name = self._named.setdefault(number, f"field_{number}_{slug(str(one.get('title') or ''))}".rstrip("_"))
            looks = _PERSONAL_TYPES.get(type_) or kind_by_name(name)
            is_hidden = looks is not None and name not in self._rules
            self._fields[number] = CustomField(name, _TYPES.get(type_, "text"), type_ not in _NO_PROSE, is_hidden)
            if is_hidden and is_new:
                self.findings.append(
                    f"zendesk: the new ticket field {number} looks like personal data ({looks}); its values are loaded as [redacted].\n"
                    f"  mend: say under zendesk.tickets in privacy/policy.yaml what becomes of it, e.g. `{name}: {{class: {looks}, action: hmac}}`"
                )

    @property
    def columns(self) -> dict[str, Type]:
        """The columns of the fields that are defined or that the tickets shown have, name -> type."""
        shown = [self._field(number) for number in sorted(self._shown)]
        return {field.column: "text" if field.is_hidden else field.kind for field in shown}

    def show(self, tickets: Iterable[Object]) -> None:
        """Say which tickets are written next: a field that only they have gets a column, named by its id."""
        self._shown = self._defined | {int(one["id"]) for ticket in tickets for one in ticket.get("custom_fields") or []}

    def column_of(self, number: int) -> str | None:
        """The name of a field in the warehouse; None for a field of Zendesk's own."""
        return self._fields[number].name if number in self._fields else None

    def values(self, given: Iterable[Object]) -> Object:
        """The columns of one ticket; what is not of its field's type is counted, and stands in `custom_fields` alone."""
        from privacy.free_text import REDACTED

        row: Object = {}
        whole: dict[str, Any] = {}
        for one in given:
            field = self._field(int(one["id"]))
            value = self._clean(field, one.get("value"))
            if value is None:
                continue
            whole[str(one["id"])] = REDACTED if self._is_taken(field) else value
            try:
                row[field.column] = converted(value, "text" if field.is_hidden else field.kind)
            except (ValueError, TypeError):
                self.unreadable[field.name] = self.unreadable.get(field.name, 0) + 1
        return {**row, "custom_fields": converted(whole, "json") if whole else None}

    def clean(self, number: int, value: Any) -> Any:
        """A value of a field without what is personal in it, as a history may keep it."""
        from privacy.free_text import REDACTED

        field = self._field(number)
        return REDACTED if value is not None and self._is_taken(field) else self._clean(field, value)

    def _field(self, number: int) -> CustomField:
        from privacy.policy import kind_by_name

        if number not in self._fields:  # no longer defined, or not shown to whoever lists the fields
            name = self._named.setdefault(number, f"field_{number}")
            self._fields[number] = CustomField(name, "text", True, name not in self._rules and kind_by_name(name) is not None)
        return self._fields[number]

    def _is_taken(self, field: CustomField) -> bool:
        """Whether the policy lets the values into no other place than the column it makes of them."""
        rule = self._rules.get(field.name)
        return rule is not None and rule.action not in ("keep", "scrub")

    def _clean(self, field: CustomField, value: Any) -> Any:
        from privacy.free_text import REDACTED, scrub, scrub_identifiers, scrub_tree

        if value is None or value == []:
            return None
        if field.is_hidden:
            return REDACTED
        if field.name in self._rules and self._rules[field.name].action != "scrub":
            return value  # whole, for the policy to replace it, or to keep it
        if isinstance(value, str):
            return scrub(value) if field.is_prose else scrub_identifiers(value)
        return scrub_tree(value) if isinstance(value, dict | list) else value


def is_custom(definition: Object) -> bool:
    """Whether a ticket field is one that somebody added."""
    return bool(definition.get("removable", True))


def slug(title: str) -> str:
    """A title as part of a column's name: ASCII letters and digits, at most forty."""
    import unicodedata

    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST_SLUG].strip("_")
