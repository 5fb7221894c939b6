"""What was written down about persons under an older key of the pseudonyms, written anew under the newest: the records and certificates.

A tag is hashed once more, as a pseudonym is. The tag of an email is made of a pseudonym, which itself has changed: so the ledger and
the consents keep those they speak of sealed, readable with the key of the pseudonyms alone, and their tags are made anew of them.
"""

import hashlib
import hmac
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy import keys, signing
from privacy.chain import Chain
from warehouse import clock
from warehouse.files import write_atomically
from warehouse.settings import settings

_NONCE = 12
_TAGS = ("named", "tags", "subjects")
_TAG = "subject"
SEALED_ANEW = "sealed anew"


def sealed_email(hashed: str) -> str:
    """The pseudonym of an erased person's email as the ledger keeps it."""
    nonce = secrets.token_bytes(_NONCE)
    return b64encode(nonce + _cipher(settings().hmac_key()).encrypt(nonce, bytes.fromhex(hashed), b"")).decode()


@dataclass(frozen=True)
class Sealed:
    """What was written anew: how many emails of erased persons are tagged anew, and how many erasures were noted without theirs."""

    emails: int
    without_emails: int


def seal_anew(ledger: Chain, trail: Chain, consents: Chain, certificates: Path) -> Sealed:
    """Write ledger, audit trail, consents and certificates anew under the newest key; killed at any moment, it is repeated.

    Raises:
        StepFailed: a record was tampered with.
    """
    ring = [key for _, key in keys.ring()]
    renamed = _emails_renamed(ledger, ring)
    last = {"at": clock.now().isoformat(), "key_id": keys.ring_ids()[-1]}
    for file in sorted(certificates.glob("*.json")) if certificates.exists() else []:
        _certificate(file, renamed)
    # The trail before the ledger: from the ledger alone it is known what became of the tag of an email.
    consents.seal_anew(ring, _converted(_emails_renamed(consents, ring)), {**last, "event": SEALED_ANEW})
    trail.seal_anew(ring, _converted(renamed), {**last, "who": "", "what": SEALED_ANEW, "subjects": []})
    ledger.seal_anew(ring, _converted(renamed), {**last, "event": SEALED_ANEW})
    return Sealed(len(renamed), sum("tags" in line and "named" in line and "emails" not in line for line in ledger.lines()))


def seal_of_certificate(content: Mapping[str, Any], key: bytes) -> str:
    """The seal of a certificate by a key."""
    sealed = {name: value for name, value in content.items() if name not in ("seal", "signature")}
    return hmac.new(key, b"certificate\n" + json.dumps(sealed, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _emails_renamed(record: Chain, ring: list[bytes]) -> dict[str, str]:
    """Tag of each email in a record, as it was before and as it is now."""
    renamed = {}
    for count in range(1, len(ring)):
        held = Chain(record.path, record.anchor, ring[count - 1])
        if not record.path.exists() or held.problems():
            continue
        again = keys.chainer(count)
        for hashed in (_opened(one, ring[count - 1]) for line in held.lines() for one in line.get("emails", [])):
            renamed[keys.chained(f"email:{hashed}", until=count)] = keys.chained(f"email:{again(hashed)}")
    return renamed


def _converted(renamed: Mapping[str, str]) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    def convert(content: dict[str, Any], count: int) -> dict[str, Any]:
        again = keys.chainer(count)
        made = dict(content)
        for name in _TAGS:
            if name in content:
                tags = [renamed.get(tag) or again(tag) for tag in content[name]]
                made[name] = tags if name == "named" else sorted(tags)
        if _TAG in content:
            made[_TAG] = renamed.get(content[_TAG]) or again(content[_TAG])
        if "emails" in content:
            made["emails"] = [sealed_email(again(_opened(one, keys.ring()[count - 1][1]))) for one in content["emails"]]
        if "key_id" in content:
            made["key_id"] = keys.ring_ids()[-1]
        return made

    return convert


def _certificate(file: Path, renamed: Mapping[str, str]) -> None:
    content = json.loads(file.read_text())
    ring = [key for _, key in keys.ring()]
    for count in range(1, len(ring)):
        if hmac.compare_digest(str(content.get("seal")), seal_of_certificate(content, ring[count - 1])):
            again = keys.chainer(count)
            made = {**content, "subjects": sorted(renamed.get(tag) or again(tag) for tag in content["subjects"])}
            made |= {"seal": seal_of_certificate(made, ring[-1])}
            made |= {"signature": signing.sign(made)} if "signature" in made else {}
            write_atomically(file, json.dumps(made, indent=2) + "\n", mode=0o600)
            return


def _opened(sealed: str, key: bytes) -> str:
    held = b64decode(sealed)
    return str(_cipher(key).decrypt(held[:_NONCE], held[_NONCE:], b"").hex())


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hashlib.sha256(b"emails of erased persons 1:" + key).digest())
