"""The audit trail: who did what to which subject, when; subjects by their tags alone."""

import getpass
import os
from collections.abc import Sequence

from privacy import erasures
from privacy.chain import Chain
from warehouse import clock
from warehouse.settings import settings


def trail() -> Chain:
    """The record itself."""
    return Chain(settings().erasures / "audit.jsonl", settings().anchors / "audit.anchor")


def note(what: str, subjects: Sequence[str], **details: object) -> int:
    """Add an act to the trail, durable when this returns.

    Args:
        subjects: tags, never keys.

    Returns:
        the number of its line.
    """
    return trail().append({"at": clock.now().isoformat(), "who": who(), "what": what, "subjects": sorted(subjects), **details})


def problems() -> list[str]:
    """What is wrong with the trail and with the ledger of erasures, in words; nothing where both are whole."""
    return [f"{chain.path.name}: {problem}" for chain in (trail(), erasures.ledger()) for problem in chain.problems()]


def who() -> str:
    """Who acts, as the trail calls them."""
    if actor := os.environ.get("GITHUB_ACTOR"):
        return f"github:{actor}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid:{os.getuid()}"
