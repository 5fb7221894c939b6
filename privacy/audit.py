"""The audit trail: who did what to which subject, when; subjects by their tags alone."""

import getpass
import os
from collections.abc import Sequence

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


def who() -> str:
    """Who acts, as the trail calls them."""
    if actor := os.environ.get("GITHUB_ACTOR"):
        return f"github:{actor}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid:{os.getuid()}"
