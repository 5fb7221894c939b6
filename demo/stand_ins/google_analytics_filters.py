"""Filters of the stand-in of Google Analytics, as they stand in the JSON of a request."""

import re
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
_MATCHES = {1: "EXACT", 2: "BEGINS_WITH", 3: "ENDS_WITH", 4: "CONTAINS", 5: "FULL_REGEXP", 6: "PARTIAL_REGEXP"}
_OPERATIONS = {1: "EQUAL", 2: "LESS_THAN", 3: "LESS_THAN_OR_EQUAL", 4: "GREATER_THAN", 5: "GREATER_THAN_OR_EQUAL"}


def passes(test: Object | None, value_of: Callable[[str], Any]) -> bool:
    """Whether a filter expression lets a row pass."""
    if not test:
        return True
    if "andGroup" in test:
        return all(passes(one, value_of) for one in test["andGroup"]["expressions"])
    if "orGroup" in test:
        return any(passes(one, value_of) for one in test["orGroup"]["expressions"])
    if "notExpression" in test:
        return not passes(test["notExpression"], value_of)
    leaf = test["filter"]
    value = value_of(leaf["fieldName"])
    if "inListFilter" in leaf:
        return str(value).lower() in [one.lower() for one in leaf["inListFilter"]["values"]]
    if "emptyFilter" in leaf:
        return value in ("", "(not set)")
    if "betweenFilter" in leaf:
        return _number(leaf["betweenFilter"]["fromValue"]) <= float(value) <= _number(leaf["betweenFilter"]["toValue"])
    if "numericFilter" in leaf:
        kind, bound = leaf["numericFilter"]["operation"], _number(leaf["numericFilter"]["value"])
        number = float(value)
        return {"EQUAL": number == bound, "LESS_THAN": number < bound, "LESS_THAN_OR_EQUAL": number <= bound, "GREATER_THAN": number > bound,
                "GREATER_THAN_OR_EQUAL": number >= bound}[_OPERATIONS.get(kind, kind)]  # fmt: skip
    given = leaf["stringFilter"]
    kind, wanted, text = given.get("matchType", 1), given["value"], str(value)
    if not given.get("caseSensitive"):
        wanted, text = wanted.lower(), text.lower()
    kind = _MATCHES.get(kind, kind)
    if kind.endswith("REGEXP"):
        return bool((re.fullmatch if kind == "FULL_REGEXP" else re.search)(wanted, text))
    return bool({"EXACT": text == wanted, "BEGINS_WITH": text.startswith(wanted), "ENDS_WITH": text.endswith(wanted), "CONTAINS": wanted in text}[kind])


def _number(given: Object) -> float:
    return float(given.get("int64Value") or given.get("doubleValue") or 0)
