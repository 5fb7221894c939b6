"""The keys of the pseudonyms: the one in force, and those before it, by which everything that is held was hashed first.

A pseudonym is a chain: HMAC with the oldest key, of that HMAC with the next, and so on. So what is held is hashed once more when a
key is changed, without the value, and a load computes the same from the value (docs/adr/0024-vault-and-rotation.md).
"""

import hashlib
import hmac
from collections.abc import Callable

from warehouse.settings import settings

_BLOCK = 64
_CHECK = b"check value of a key of pseudonyms"


def ring() -> list[tuple[str, bytes]]:
    """Id and key of each key in force, the oldest first, the one of `PRIVACY__HMAC_KEY` last.

    Raises:
        UsageError: it is not set.
    """
    return [*before(), (settings().privacy.hmac_key_id, settings().hmac_key())]


def before() -> list[tuple[str, bytes]]:
    """The keys that were in force before, the oldest first."""
    return [(key_id, key.get_secret_value().encode()) for key_id, key in (settings().privacy.hmac_keys_before or {}).items()]


def ring_ids() -> list[str]:
    """The ids of the keys in force, the oldest first."""
    return [*(key_id for key_id, _ in before()), settings().privacy.hmac_key_id]


def chained(text: str, since: int = 0, until: int | None = None) -> str:
    """The keyed hash of a text, 64 hex digits: what `pseudonyms.keyed_hash` gives in SQL.

    Args:
        since: how many keys were in force when the text, a keyed hash itself, was made.
        until: how many were in force when the hash that is wanted was made; all that are now unless given.
    """
    return chainer(since, until)(text)


def chainer(since: int = 0, until: int | None = None) -> Callable[[str], str]:
    """`chained` for many texts: the padded keys are hashed once."""
    states = [tuple(map(hashlib.sha256, padded(key))) for _, key in ring()[since:until]]

    def chain(text: str) -> str:
        for inner, outer in states:
            within, around = inner.copy(), outer.copy()
            within.update(text.encode())
            around.update(within.digest())
            text = around.hexdigest()
        return text

    return chain


def rooted(text: str) -> str:
    """The keyed hash of a text with the oldest key alone: what stays the same when keys are changed."""
    return hmac.digest(ring()[0][1], text.encode(), "sha256").hex()


def check_value(key: bytes) -> str:
    """What tells a key from another and does not tell the key."""
    return hmac.digest(key, _CHECK, "sha256").hex()[:16]


def padded(key: bytes) -> tuple[bytes, bytes]:
    """The two padded keys of HMAC-SHA256 (RFC 2104), inner and outer."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)
