"""Which columns of an archive are personal: what lies locked for years must be forgotten with the person, or not be in it.

The policy of the privacy room decides: what it declares personal, pseudonyms among it, the keys of persons, and whatever an erasure takes.
"""

from collections.abc import Mapping
from functools import lru_cache

from privacy.policy import SubjectRule, kind_by_name, policy
from privacy.pseudonyms import held_names
from privacy.rows import base_of

_RAW = "raw_"
_TEXT = ("VARCHAR", "JSON", "BLOB")


def personal(schema: str, table: str, columns: Mapping[str, str]) -> set[str]:
    """The columns of a table that are personal.

    Args:
        columns: name -> DuckDB's type.
    """
    if not schema.startswith(_RAW):
        known = _names_anywhere()
        return {name for name in columns if name.lower() in known or kind_by_name(name)}
    source = schema.removeprefix(_RAW)
    base = base_of(source, table, policy().columns) or f"{source}.{table}"
    owner = base_of(source, table, policy().subjects)
    declared = _declared(base, is_of_persons=owner is not None)
    found = {name for name in columns if _plain(name) in declared or name in declared}
    if owner:
        rule = policy().subjects[owner]
        found |= {name for name, kind in columns.items() if _goes(rule, name, kind)}
    return found


def _plain(name: str) -> str:
    """A column that was set aside when its type changed is called `<name>_was_<type>`."""
    return name.partition("_was_")[0]


def _declared(base: str, *, is_of_persons: bool) -> set[str]:
    """What is declared personal of a table; what is kept for a reason in a table without persons is not."""
    rules = policy().columns.get(base, {})
    return {
        name
        for column, rule in rules.items()
        if rule.personal_class != "none" and (rule.action != "keep" or is_of_persons)
        for name in held_names(column, rule)
    }


def _goes(rule: SubjectRule, name: str, kind: str) -> bool:
    """Whether a column names a person, or is taken when one is erased."""
    of_person = [rule.email or "", rule.same_as or "", rule.key] if rule.person else []
    links = {column.partition(".")[0] for column in (*rule.of, *rule.mentions, *rule.lists, *of_person)}
    plain = _plain(name)
    if {name, plain} & {*links, *rule.trees, *rule.forget}:
        return True
    if name.startswith("_") and name != "_object":
        return False
    if rule.erase == "remove":
        return kind.startswith(_TEXT) and name not in rule.within and name != rule.key
    return rule.keep is not None and name not in {*rule.keep, *rule.within}


@lru_cache(maxsize=1)
def _names_anywhere() -> frozenset[str]:
    """The names under which personal columns stand in built tables."""
    now = policy()
    declared = {name for table in now.columns for name in _declared(table, is_of_persons=table in now.subjects)}
    keys = {column.partition(".")[0] for rule in now.subjects.values() for column in (*rule.of, *rule.mentions, *rule.lists)}
    return frozenset(name.lower() for name in (*declared, *keys, *now.carried))
