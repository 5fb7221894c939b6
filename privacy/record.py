"""The record of processing as Markdown (`docs/privacy.md`), made of the policy alone."""

from collections.abc import Iterable, Sequence

from privacy.policy import SubjectRule, policy
from privacy.pseudonyms import held_names

_BECOMES = {
    "hmac": "keyed hash",
    "mask": "all but the last two digits",
    "redact": "only that it existed",
    "scrub": "text without emails and numbers of persons",
    "encrypt": "sealed under the person's own key",
    "drop": "not loaded",
    "keep": "kept",
}
_HEAD = """# Personal data: the record of processing
Made by `warehouse privacy record` from privacy/policy.yaml; do not edit.

## What is promised
- What is listed below is pseudonymised, masked, redacted, scrubbed, sealed or dropped before anything is written, to any file.
- A column that is not listed and looks personal, by its name or by its values, stops the load.
- A pseudonym is HMAC-SHA256 of the normalised value with a key that stands in no SQL text, log or list of processes. The same
  person has the same pseudonym in every source.
- Erased means erased: [how](how-to/erase-a-person.md). No later load, rebuild or restore brings a person back.
- What is sealed (`encrypt`, and all that is personal in archives) stands under a key of each person's own, AES-256-GCM, in
  [the vault](how-to/vault.md). An erasure destroys the key, and with it what every copy holds, locked archives among them. Named
  readers alone read it; each reading is recorded with its purpose.
- The key of the pseudonyms [can be changed](how-to/rotate-keys.md): all that is held is hashed once more.
- A person gets all that is held: `warehouse privacy export`.
- What needs consent is done with consent alone, and until it is taken back: [how](how-to/ask-for-consent.md).
- Erasures and exports are recorded in chains that show an edit, a gap and a cut tail: `warehouse privacy verify`.

## What is not
- Sources keep their own copies, for as long as they do.
- Backups made before an erasure hold what they held until they expire; a restore erases again.
- A name or an address in free text cannot be told from other words; a text that must not hold them is declared `redact` or `drop`.
- A pseudonym is personal data still: who has the key and a list of emails can tell whose it is.
- Copies of the vault's keys are kept for {days} days at the most; so long a destroyed key may come back, from such a copy alone.
- What readers copied out of the published files is theirs to erase.
"""


def document() -> str:
    """The whole record."""
    declared = policy()
    why = ((source, one.purpose, one.basis, one.kept) for source, one in declared.processing.items())
    columns = [
        (f"`{table}.{name}`", rule.personal_class.replace("_", " "), _BECOMES[rule.action], _listed(held_names(name, rule)), rule.why or "")
        for table, rules in declared.columns.items()
        for name, rule in rules.items()
    ]
    agreed = ((f"`{name}`", one.meaning, f"version {one.version}") for name, one in declared.consent.purposes.items())
    rows = ((f"`{table}`", _whose(rule), "removed" if rule.erase == "remove" else "blank", rule.why or "") for table, rule in declared.subjects.items())
    readers = ", ".join(f"`{one}`" for one in declared.vault.readers) or "nobody"
    return "\n".join(
        [
            _HEAD.format(days=declared.vault.copies_kept_days),
            "## Why it is held\n" + _grid(("source", "purpose", "basis", "kept"), why),
            f"## Who reads what is sealed\n{readers[0].upper() + readers[1:]}.\n",
            "## What needs consent\n" + _grid(("purpose", "what is done", "words in force"), agreed),
            "## What is personal\n" + _grid(("column", "class", "becomes", "held as", "why it is kept"), columns),
            "## Whose the rows are, and what an erasure does\n" + _grid(("table", "whose", "rows are", "why they are kept"), rows),
        ]
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _whose(rule: SubjectRule) -> str:
    said = [f"a person of {rule.person}, by `{rule.key}`" + (f" and `{rule.email}`" if rule.email else "")] if rule.person else []
    said += [f"`{column}` ({'email' if kind == 'email' else f'person of {kind}'})" for column, kind in rule.of.items()]
    said += [f"with its row in `{table}`" for table in rule.within.values()]
    mentioned = [*rule.mentions, *rule.lists]
    return "; ".join([*said, *([f"mentioned in {_listed(mentioned)}"] if mentioned else [])])


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
