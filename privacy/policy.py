"""The policy: which columns are personal, and how a column that is not declared is recognised as personal."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from warehouse.declared import read
from warehouse.errors import UsageError
from warehouse.settings import ROOT

POLICY_FILE = ROOT / "privacy" / "policy.yaml"

PersonalClass = Literal["email", "phone", "ssn", "name", "address", "ip", "birth_date", "free_text", "card", "id", "none"]
Action = Literal["hmac", "mask", "redact", "scrub", "drop", "keep", "encrypt"]


class ColumnRule(BaseModel):
    """What one column is and what is done with it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    personal_class: PersonalClass = Field(alias="class")
    action: Action
    why: str | None = None

    @model_validator(mode="after")
    def _kept_for_a_reason(self) -> "ColumnRule":
        if self.action == "keep" and self.personal_class != "none" and not self.why:
            raise ValueError("a personal column is kept only with a reason: add `why: …`")
        return self


class SubjectRule(BaseModel):
    """Whose the rows of a raw table are, and what erasing a person does to them.

    Columns are named as they are in the warehouse; `column.path.in.it` reads a JSON tree.

    Attributes:
        person: the kind of person that each row is, told apart by `key`; None for a table about persons.
        email: of a person, the column with the keyed hash of the email.
        same_as: of a person of another system, where that system says which production user it is.
        of: column -> kind of person whose key it holds (`email` for a keyed hash of an email); one that is erased takes the row along.
        within: column -> declared table; a row goes with the row there whose `key` it holds.
        mentions: column -> kind; only the key is taken out of it, the row is someone else's. `lists`: the same in JSON arrays.
        erase: `remove` the row, or `blank` it: keys become surrogates that lead nowhere, and what is not kept becomes null.
        keep: what stays of a blanked row (beside its keys); all else goes. Instead of it:
        forget: what goes of a blanked row beside its personal columns; all else stays.
        trees: JSON of a blanked row that stays, without the keys that `forget_in_trees` names and with surrogates for keys.
        why: why something is kept of the row; required with `blank`.
    """

    model_config = ConfigDict(extra="forbid")
    person: str | None = None
    key: str = "id"
    email: str | None = None
    same_as: str | None = None
    of: dict[str, str] = {}
    within: dict[str, str] = {}
    mentions: dict[str, str] = {}
    lists: dict[str, str] = {}
    erase: Literal["remove", "blank"]
    keep: list[str] | None = None
    forget: list[str] = []
    trees: list[str] = []
    why: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "SubjectRule":
        if not (self.person or self.of or self.within or self.mentions or self.lists):
            raise ValueError("says nothing about whose the rows are: add `person`, `of` or `within`")
        if self.erase == "blank" and not self.why:
            raise ValueError("rows of an erased person are kept, blank, only with a reason: add `why: …`")
        if self.keep is not None and self.forget:
            raise ValueError("`keep` and `forget` exclude each other")
        return self


class Processing(BaseModel):
    """Why personal data of one source is held at all (an entry of the record of processing).

    Attributes:
        basis: what law allows it by.
        kept: how long, in words.
    """

    model_config = ConfigDict(extra="forbid")
    purpose: str
    basis: Literal["consent", "contract", "legal obligation", "vital interests", "public task", "legitimate interests"]
    kept: str


class RetentionRule(BaseModel):
    """How long rows of a raw table are kept.

    Attributes:
        by: the column with a row's own time.
        days: how long after that time.
    """

    model_config = ConfigDict(extra="forbid")
    by: str
    days: Annotated[int, Field(ge=1)]


class VaultRule(BaseModel):
    """Who may read what is sealed, and how long copies of its keys are kept.

    Attributes:
        readers: each as the audit trail calls them: a user of the machine, or `github:<name>`.
        copies_kept_days: for so long a key that was destroyed may come back from a copy; 30 at the most.
    """

    model_config = ConfigDict(extra="forbid")
    readers: list[Annotated[str, Field(min_length=1)]] = []
    copies_kept_days: Annotated[int, Field(ge=1, le=30)] = 30


class Consents(BaseModel):
    """A purpose that needs consent.

    Attributes:
        meaning: what is done with whose data, as persons are told.
        version: of the words in force.
        past: versions of words that are not used any more; what was given by them stays given.
    """

    model_config = ConfigDict(extra="forbid")
    meaning: str
    version: str
    past: list[str] = []

    @property
    def versions(self) -> list[str]:
        """Every version that ever was in force."""
        return [*self.past, self.version]


class ConsentColumn(BaseModel):
    """A column of a raw table that says whether its person consents: true given, false withdrawn, null nothing said.

    Attributes:
        version: of the words that the column stands for.
        at: the column with the time at which it was said.
    """

    model_config = ConfigDict(extra="forbid")
    table: str
    column: str
    purpose: str
    version: str
    at: str


class ConsentPolicy(BaseModel):
    """What needs consent, and where consents are kept beside the record."""

    model_config = ConfigDict(extra="forbid")
    purposes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Consents] = {}
    columns: list[ConsentColumn] = []


class Policy(BaseModel):
    """The whole policy: `<source>.<table>` -> column -> rule.

    Attributes:
        processing: source -> why its personal data is held.
        phone_regions: ISO codes of the countries whose telephone numbers are recognised in free text also without a `+`.
        subjects: `<source>.<table>` -> whose its rows are.
        forget_in_trees: keys whose values go from JSON trees of erased persons, at any depth.
        retention: `<source>.<table>` -> how long its rows are kept; tables that are not listed keep them for good.
        vault: who may read what is sealed.
        carried: column of built tables -> kind of person whose key it holds; `any` for a key that begins with its kind.
        consent: what needs consent; models ask for it by `@consented('purpose', key)`.
        histories: built tables that cannot be made anew from their input; rows of erased persons are taken out of them.
    """

    model_config = ConfigDict(extra="forbid")
    processing: dict[str, Processing] = {}
    phone_regions: list[Annotated[str, Field(pattern=r"^[A-Z]{2}$")]] = ["US"]
    columns: dict[str, dict[str, ColumnRule]]
    subjects: dict[str, SubjectRule] = {}
    forget_in_trees: list[str] = []
    retention: dict[str, RetentionRule] = {}
    vault: VaultRule = VaultRule()
    carried: dict[str, str] = {}
    histories: list[str] = []
    consent: ConsentPolicy = ConsentPolicy()

    @model_validator(mode="after")
    def _kinds_are_known(self) -> "Policy":
        kinds = {rule.person for rule in self.subjects.values() if rule.person} | {"email"}
        for table, rule in self.subjects.items():
            links = [*rule.of.values(), *rule.mentions.values(), *rule.lists.values()]
            if unknown := [kind for kind in links if kind not in kinds]:
                raise ValueError(f"subjects.{table}: no table has persons of the kind {unknown[0]!r}; kinds: {', '.join(sorted(kinds))}")
            if missing := [parent for parent in rule.within.values() if parent not in self.subjects]:
                raise ValueError(f"subjects.{table}: {missing[0]} is not declared")
        if facts := [table for table in self.retention if table in self.subjects and self.subjects[table].erase == "blank"]:
            raise ValueError(f"retention.{facts[0]}: its rows are facts that stay ({self.subjects[facts[0]].why})")
        sealed = [(table, column) for table, columns in self.columns.items() for column, rule in columns.items() if rule.action == "encrypt"]
        if nobodys := [f"{table}.{column}" for table, column in sealed if table not in self.subjects]:
            raise ValueError(
                f"columns.{nobodys[0]}: what is encrypted is sealed under its person's key: add whose the rows are, `subjects.{nobodys[0].rpartition('.')[0]}`"
            )
        if wrong := [kind for kind in self.carried.values() if kind not in kinds | {"any"}]:
            raise ValueError(f"carried: no table has persons of the kind {wrong[0]!r}")
        for one in self.consent.columns:
            declared, whose = self.consent.purposes.get(one.purpose), self.subjects.get(one.table)
            if declared is None or one.version not in declared.versions:
                known = ", ".join(f"{name} ({', '.join(purpose.versions)})" for name, purpose in self.consent.purposes.items())
                raise ValueError(f"consent.columns.{one.table}.{one.column}: no purpose {one.purpose} with version {one.version}; declared: {known or 'none'}")
            if whose is None or not (whose.person or [kind for kind in whose.of.values() if kind != "email"]):
                raise ValueError(f"consent.columns.{one.table}.{one.column}: subjects does not say by which key whose its rows are")
            if whose.erase == "blank" and (whose.keep is None or one.column in whose.keep):
                raise ValueError(f"consent.columns.{one.table}.{one.column}: stays in rows of erased persons; take it out of `keep`, or `erase: remove`")
        return self

    def rules(self, source: str, table: str) -> dict[str, ColumnRule]:
        """The rules of one table, by column name; empty when nothing of it is personal."""
        return self.columns.get(f"{source}.{table}", {})


def policy(path: Path | None = None) -> Policy:
    """The policy in force.

    Raises:
        DeclarationError: the file is missing or wrong; names key, value and what is allowed.
    """
    return read(path or POLICY_FILE, Policy)


# Names that mean personal data wherever they stand; matched on whole words of the column name.
_NAMES: dict[PersonalClass, str] = {
    "email": r"e_?mails?|email_?address|mail",
    "phone": r"phones?|phone_?number|mobile|telephone|tel|cell|fax|whatsapp",
    "ssn": r"ssn|social_?security(_?number)?|national_?id|tax_?id|passport(_?number)?|driving_?licen[cs]e",
    "name": r"first_?name|last_?name|full_?name|given_?name|family_?name|surname|maiden_?name|middle_?name|display_?name",
    "address": r"address(_?line)?_?\d*|street|postal_?code|post_?code|zip(_?code)?",
    "ip": r"ip|ip_?addr(ess)?|remote_?addr|last_?login_?ip",
    "birth_date": r"birth_?(date|day)|date_?of_?birth|dob|born_?on",
    "card": r"card_?number|pan|iban|account_?number|cvc|cvv",
}
_NAME_PATTERNS = {kind: re.compile(rf"(^|_)({words})($|_)") for kind, words in _NAMES.items()}

# Values: RE2 patterns for pyarrow. A single email or SSN is enough; phones are told from other numbers by their share.
EMAIL_VALUE = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
SSN_VALUE = r"(^|[^0-9-])[0-9]{3}-[0-9]{2}-[0-9]{4}($|[^0-9-])"
_PHONE_VALUE = r"^\s*(\+[0-9]{1,3}|\([0-9]{2,4}\)|00[0-9]{2})[0-9 ().-]{6,}[0-9]\s*$"
_PHONE_SHARE = 0.2
_SAMPLE = 2_000


def refuse_undeclared(source: str, table: str, batch: pa.Table) -> None:
    """Stop the load when a column that the policy does not list looks personal, by its name or by its values.

    Args:
        batch: rows as they come from the source; up to 2,000 distinct values of each text column are looked at.

    Raises:
        UsageError: names source, table and column, and what to add to the policy; never a value.
    """
    known = policy().rules(source, table)
    for column in batch.column_names:
        if column in known:
            continue
        kind = kind_by_name(column)
        because = "its name"
        if kind is None:
            kind = _by_values(batch.column(column))
            because = "its values"
        if kind is not None:
            raise undeclared(source, table, column, kind, because)


def undeclared(source: str, table: str, column: str, kind: str, because: str) -> UsageError:
    """The error for a column that looks personal and is not in the policy, with the line to add."""
    action = {"email": "hmac", "phone": "mask"}.get(kind, "redact")
    return UsageError(
        f"{source}.{table}.{column} looks like personal data ({kind}, by {because}) and is not declared, so nothing was loaded.",
        mend=f"add `{column}: {{class: {kind}, action: {action}}}` under `{source}.{table}` in privacy/policy.yaml "
        "(or `{class: none, action: keep}` if it is not personal)",
    )


def kind_by_name(column: str) -> PersonalClass | None:
    """The class of personal data that a name stands for; None when it looks like none."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column).lower()
    for kind, pattern in _NAME_PATTERNS.items():
        if pattern.search(snake):
            return kind
    return None


def _by_values(column: pa.ChunkedArray) -> PersonalClass | None:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    sample = pc.drop_null(pc.unique(column)).slice(0, _SAMPLE)
    if len(sample) == 0:
        return None
    if pc.any(pc.match_substring_regex(sample, EMAIL_VALUE)).as_py():
        return "email"
    if pc.any(pc.match_substring_regex(sample, SSN_VALUE)).as_py():
        return "ssn"
    phones = pc.sum(pc.match_substring_regex(sample, _PHONE_VALUE)).as_py()
    return "phone" if phones and phones / len(sample) >= _PHONE_SHARE else None
