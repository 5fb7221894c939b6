"""Signatures of certificates: made with a private key that only this warehouse has, checked by anybody with the public one (Ed25519)."""

import base64
import binascii
import json
from typing import Any

from warehouse.errors import UsageError
from warehouse.settings import settings

_PREFIX = "ed25519:"
_BYTES = 32
_UNSIGNED = ("signature",)


def new_key() -> tuple[str, str]:
    """A new private key, for `PRIVACY__SIGNING_KEY`, and its public key, both as text."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate()
    return _text(made.private_bytes_raw()), _text(made.public_key().public_bytes_raw())


def public_key() -> str | None:
    """The public key of this warehouse; None where no private key is set.

    Raises:
        UsageError: what is set is no key.
    """
    raw = _private()
    if raw is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _text(Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw())


def sign(content: dict[str, Any]) -> str:
    """The signature of a certificate, in base64; empty where no private key is set."""
    raw = _private()
    if raw is None:
        return ""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return base64.b64encode(Ed25519PrivateKey.from_private_bytes(raw).sign(_signed(content))).decode()


def problems(text: str, public: str) -> list[str]:
    """What is wrong with a certificate by a public key alone, in words; nothing where it is what was signed.

    Raises:
        UsageError: the public key is none.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(_raw(public, "the public key"))
    try:
        content = json.loads(text)
        signature = base64.b64decode(content["signature"], validate=True)
    except (ValueError, KeyError, TypeError):
        return ["it is no certificate"]
    if not signature:
        return ["it is not signed: PRIVACY__SIGNING_KEY was not set when it was made"]
    try:
        key.verify(signature, _signed(content))
    except InvalidSignature:
        return ["it was edited, or another key signed it"]
    return []


def _signed(content: dict[str, Any]) -> bytes:
    told = {name: value for name, value in content.items() if name not in _UNSIGNED}
    return b"certificate\n" + json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _private() -> bytes | None:
    given = settings().privacy.signing_key
    text = given.get_secret_value() if given else ""
    return _raw(text, "PRIVACY__SIGNING_KEY") if text else None


def _raw(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _BYTES:
        raise UsageError(
            f"{what} is no Ed25519 key: allowed are {_PREFIX} and {_BYTES} bytes in base64.", mend="`warehouse privacy signing-key --new` makes one"
        )
    return raw


def _text(raw: bytes) -> str:
    return _PREFIX + base64.b64encode(raw).decode()
