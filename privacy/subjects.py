"""Who is meant: a person named by one key, all keys of that person, and the keyed hashes by which they are found again."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from privacy import keys, pseudonyms
from privacy.policy import SubjectRule, policy
from privacy.pseudonyms import keyed_hash
from warehouse.errors import UsageError
from warehouse.sql import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PRODUCTION = "postgres"
"""The kind of person that other systems' persons are told by: the users of the company's own database."""
EMAIL = "email"
_ALIASES = {"user": PRODUCTION}


@dataclass(frozen=True)
class Subject:
    """A person as the operator names one: kind and key; of an email the keyed hash alone."""

    kind: str
    value: str


def parse(text: str) -> Subject:
    """`user:42`, `email:jo@example.com`, `stripe:cus_1` or `zendesk:7`.

    Raises:
        UsageError: it is none of these.
    """
    kind, _, value = text.partition(":")
    kind, value = _ALIASES.get(kind.strip(), kind.strip()), value.strip()
    kinds = sorted({rule.person for rule in policy().subjects.values() if rule.person} | {EMAIL})
    if kind not in kinds or not value:
        shown = ", ".join(f"{ {PRODUCTION: 'user'}.get(one, one) }:…" for one in kinds)
        raise UsageError("a subject is a kind and a key.", mend=f"write one of {shown}")
    if kind == EMAIL:
        value = hashed(value.strip(" \t\n\v\f\r").lower())
    return Subject(kind, value)


def hashed(text: str) -> str:
    """The keyed hash of a text, as `pseudonyms.keyed_hash` makes it in SQL."""
    return keys.chained(text)


def tag(kind: str, value: str) -> str:
    """What the ledger of erasures keeps of a key: it is equal to nothing that stands in the warehouse."""
    return hashed(f"{kind}:{value}")


def surrogate(kind: str, value: str, form: Literal["word", "number"]) -> str | int:
    """What stands in place of a key: always the same, made with the oldest key of the pseudonyms, and nobody's."""
    digest = keys.rooted(f"surrogate {kind}:{value}")
    return f"erased_{digest[:20]}" if form == "word" else -int(digest[:15], 16) - 1


def bind_tags(connection: "DuckDBPyConnection", tags: Iterable[tuple[str, str]]) -> None:
    """Make the table `_erased` (tag, at) of a connection."""
    import pyarrow as pa

    rows = list(tags)
    connection.register(
        "_given", pa.table({"tag": pa.array([row[0] for row in rows], pa.string()), "at_text": pa.array([row[1] for row in rows], pa.string())})
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE _erased AS SELECT tag, min(at_text::TIMESTAMPTZ) AS erased_at FROM _given GROUP BY tag")
    connection.unregister("_given")


def tagged(kind: str, value: str) -> str:
    """SQL for the tag of a value given as SQL text, with the parameters of `hmac_parameters` bound; `any`: the value begins with its kind."""
    return keyed_hash(value if kind == "any" else f"{literal(kind + ':')} || {value}")


def expression(column: str, alias: str = "r") -> str:
    """SQL text for a column of the policy, or for what stands at a path in one that is JSON."""
    name, _, path = column.partition(".")
    held = f"{alias}.{quoted(name)}"
    return f"json_extract_string({held}, {literal('$.' + path)})" if path else f"{held}::VARCHAR"


def distinct(column: str, relation: str) -> str:
    """SQL for the different values of a column as `value`, as text; told apart in their own type, which takes less room."""
    told = expression(column) if "." in column else f"r.{quoted(column)}"
    return f"SELECT value::VARCHAR AS value FROM (SELECT DISTINCT {told} AS value FROM {relation} AS r)"


def kinds_of_key(connection: "DuckDBPyConnection") -> dict[str, tuple[str, SubjectRule]]:
    """The tables of persons that the warehouse has: kind -> SQL name, and the rule without what the table does not hold."""
    from privacy.rows import columns_of

    found = {}
    for table, rule in policy().subjects.items():
        source, name = table.split(".", 1)
        columns = columns_of(connection, f"raw_{source}", name)
        if rule.person and rule.key in columns:
            lacking = [one for one in ("email", "same_as") if (getattr(rule, one) or "").partition(".")[0] not in columns]
            found[rule.person] = (f"raw_{source}.{quoted(name)}", rule.model_copy(update=dict.fromkeys(lacking)))
    return found


def resolve(connection: "DuckDBPyConnection", named: Iterable[Subject]) -> list[Subject]:
    """All keys of the persons named, by the rules of who is who: what another system declares first, then the email.

    An email that several production users have is nobody's: it joins nothing, and it is not erased with one of them.

    Raises:
        UsageError: an email names several production users.
    """
    from privacy import key_state

    key_state.check(connection)
    wanted = list(dict.fromkeys(named))
    make_persons(connection)
    import pyarrow as pa

    connection.register("_named", pa.table({"kind": [one.kind for one in wanted], "value": [one.value for one in wanted]}))
    connection.execute("CREATE OR REPLACE TEMP TABLE _wanted AS SELECT kind::VARCHAR AS kind, value::VARCHAR AS value FROM _named")
    connection.unregister("_named")
    shared = connection.execute(
        f"SELECT list(p.value ORDER BY p.value)[:5] FROM _persons p JOIN _wanted w ON w.kind = '{EMAIL}' AND w.value = p.email "
        f"WHERE p.kind = '{PRODUCTION}' GROUP BY p.email HAVING count(*) > 1 LIMIT 1"
    ).fetchone()
    if shared:
        users = ", ".join(f"user:{value}" for value in shared[0])
        raise UsageError(f"the email names several persons: {users}.", mend="name the one that is meant by its key, or each of them")
    # A person of the customers that were named, by key or by an email that is theirs alone.
    found = connection.execute(
        "WITH meant AS (SELECT p.customer FROM _customers p JOIN _wanted w ON w.kind = p.kind AND w.value = p.value "
        f"UNION SELECT p.customer FROM _customers p JOIN _wanted w ON w.kind = '{EMAIL}' AND w.value = p.email WHERE NOT p.is_ambiguous) "
        "SELECT DISTINCT kind, value, email FROM _customers WHERE customer IN (SELECT customer FROM meant)"
    ).fetchall()
    keys = {Subject(kind, value) for kind, value, _ in found} | set(wanted)
    emails = {email for _, _, email in found if email}
    connection.register("_named", pa.table({"value": pa.array(sorted(emails), pa.string())}))
    holders = connection.execute("SELECT kind, value, email FROM _persons WHERE email IN (SELECT value FROM _named)").fetchall()
    connection.unregister("_named")
    others = {email for kind, value, email in holders if Subject(kind, value) not in keys}
    return sorted(keys | {Subject(EMAIL, email) for email in emails - others}, key=lambda one: (one.kind, one.value))


def make_persons(connection: "DuckDBPyConnection") -> None:
    """`_persons` (kind, value, email, declared) of every system, and `_customers`: the same with the customer each is."""
    parts = [
        f"SELECT {literal(kind)} AS kind, {expression(rule.key)} AS value, {expression(rule.email) if rule.email else 'NULL::VARCHAR'} AS email, "
        f"{expression(rule.same_as) if rule.same_as else 'NULL::VARCHAR'} AS declared FROM {name} r WHERE {expression(rule.key)} IS NOT NULL"
        for kind, (name, rule) in kinds_of_key(connection).items()
    ]
    nobody = "SELECT NULL::VARCHAR AS kind, NULL::VARCHAR AS value, NULL::VARCHAR AS email, NULL::VARCHAR AS declared WHERE false"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _persons AS {' UNION ALL '.join([nobody, *parts])}")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _customers AS WITH "
        f"users AS (SELECT value, email FROM _persons WHERE kind = '{PRODUCTION}'), "
        "owners AS (SELECT email, count(*) AS users, min(value) AS value FROM users WHERE email IS NOT NULL GROUP BY email), "
        "judged AS (SELECT p.kind, p.value, p.email, o.email IS NOT NULL AS is_known, d.value AS declared, "
        f"CASE WHEN p.kind = '{PRODUCTION}' THEN p.value "
        "WHEN d.value IS NOT NULL AND o.email IS NOT NULL AND d.email IS DISTINCT FROM p.email THEN NULL "
        "WHEN d.value IS NOT NULL THEN d.value WHEN o.users = 1 THEN o.value END AS user_key "
        "FROM _persons p LEFT JOIN users d ON d.value = trim(p.declared) LEFT JOIN owners o ON o.email = p.email) "
        f"SELECT kind, value, email, user_key IS NULL AND is_known AS is_ambiguous, CASE WHEN user_key IS NOT NULL THEN '{PRODUCTION}:' || user_key "
        f"WHEN email IS NOT NULL AND NOT is_known THEN '{EMAIL}:' || email ELSE kind || ':' || value END AS customer FROM judged"
    )


def parameters() -> dict[str, bytes]:
    """What SQL made of `tagged` needs bound."""
    return pseudonyms.parameters()
