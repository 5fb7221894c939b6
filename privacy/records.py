"""The records that prove what was done, together: how far each goes, and whether one that was noted elsewhere is still contained."""

from collections.abc import Mapping
from pathlib import Path

from privacy import audit, consent, erasures
from privacy.chain import Chain
from warehouse.settings import settings

ERASURES = "erasures.jsonl"


def chains() -> dict[str, Chain]:
    """Each record by the name of its file."""
    return {chain.path.name: chain for chain in (erasures.ledger(), audit.trail(), consent.record_of_consents())}


def heads() -> dict[str, str]:
    """How far each record goes, as `lines:seal of the last`; records that are empty are left out.

    Raises:
        StepFailed: one was tampered with.
    """
    found = {name: chain.head() for name, chain in chains().items() if chain.path.exists() or chain.anchor.exists()}
    return {name: f"{lines}:{seal}" for name, (lines, seal) in found.items() if lines}


def problems() -> list[str]:
    """What is wrong with the records by what they say themselves, in words; nothing where all are whole."""
    return [f"{name}: {problem}" for name, chain in chains().items() for problem in chain.problems()]


def against(noted: Mapping[str, str], where: str) -> list[str]:
    """What is wrong with the records by heads that were noted elsewhere, in words.

    Args:
        noted: as `heads` gave them then.
        where: it was noted, for people.
    """
    found = []
    for name, mark in noted.items():
        chain = chains().get(name)
        if chain is None:
            continue
        number, seal, there = lines_of(mark), mark.partition(":")[2], len(chain.seals())
        if number > there:
            found.append(f"{name}: its tail was cut off: {number} lines were noted in {where}, {there} are there")
        elif number and not chain.had(number, seal):
            found.append(f"{name}: line {number} is not the one that was noted in {where}")
    return found


def lines_of(mark: str) -> int:
    """How many lines a head speaks of."""
    number = mark.partition(":")[0]
    return int(number) if number.isdigit() else 0


def files() -> list[Path]:
    """The files of the records and their anchors, as far as they are there."""
    return [path for chain in chains().values() for path in (chain.path, chain.anchor) if path.exists()]


def place_of(name: str, folder: Path) -> Path:
    """Where a file of the records goes that was copied from elsewhere: anchors to their own folder, where the records go to theirs."""
    is_anchor = name.endswith(".anchor") and folder == settings().erasures
    return (settings().anchors if is_anchor else folder) / name
