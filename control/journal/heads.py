"""Signed heads: a statement, kept elsewhere, of how far every run went.

A hash chain shows that an event was changed, but not that the last ones, or a whole run, were taken away. Whoever holds
an earlier statement can show that too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from control.journal.audit import every_run
from control.journal.journal import Journal
from infra.clock import Clock
from infra.disk import explained
from infra.errors import DataLoss

_PRIVATE = "journal.ed25519.pem"
_PUBLIC = "journal.ed25519.pub.pem"


@dataclass(frozen=True, slots=True)
class Head:
    """How far a run went; the hash is in hexadecimal digits."""

    run_id: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class SignedHeads:
    """Every head at one time; `signature` is Ed25519 (RFC 8032) in hexadecimal digits over signed_bytes()."""

    time_ms: int
    log_generation: int
    heads: tuple[Head, ...]
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What is signed: everything but the signature, as JSON with sorted keys and no spaces."""
        said = asdict(self) | {"signature": ""}
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    def to_json(self) -> str:
        """One line, for a file or a mail."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> SignedHeads:
        """Read to_json() back; DataLoss HEADS_UNREADABLE for anything else."""
        try:
            said = json.loads(text)
            heads = tuple(Head(str(head["run_id"]), int(head["seq"]), str(head["hash"])) for head in said["heads"])
            return SignedHeads(int(said["time_ms"]), int(said["log_generation"]), heads, str(said["signature"]))
        except (ValueError, KeyError, TypeError) as unreadable:
            raise DataLoss("HEADS_UNREADABLE", f"this is no export of journal heads: {unreadable}") from unreadable


async def export_heads(journal: Journal, key: Ed25519PrivateKey, clock: Clock) -> SignedHeads:
    """The heads of all runs, signed."""
    heads = tuple([Head(run.run_id, run.head_seq, run.head_hash.hex()) async for run in every_run(journal)])
    unsigned = SignedHeads(clock.now_ms(), await journal.log_generation(), heads)
    signature = key.sign(unsigned.signed_bytes()).hex()
    return SignedHeads(unsigned.time_ms, unsigned.log_generation, heads, signature)


async def check_heads(journal: Journal, signed: SignedHeads, key: Ed25519PublicKey) -> tuple[str, ...]:
    """What the journal no longer has of what was signed: one sentence a run, none when all is there.

    Raises DataLoss HEADS_FORGED when the statement does not bear the signature of that key.
    """
    try:
        key.verify(bytes.fromhex(signed.signature), signed.signed_bytes())
    except (InvalidSignature, ValueError) as forged:
        raise DataLoss("HEADS_FORGED", "these heads were not signed by this key, or were changed since") from forged
    missing: list[str] = []
    for head in signed.heads:
        found = await journal.read(head.run_id, after_seq=head.seq - 1, limit=1)
        if not found or found[0].seq != head.seq:
            missing.append(f"run {head.run_id} had {head.seq} events, and event {head.seq} is gone")
        elif found[0].hash.hex() != head.hash:
            missing.append(f"run {head.run_id} had another event {head.seq}")
    return tuple(missing)


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The key in a folder, made at first use: private for its owner only, public beside it."""
    private = folder / _PRIVATE
    with explained(private):
        if not private.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_key(folder)
        key = load_pem_private_key(private.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise DataLoss("KEY_UNREADABLE", f"{private} is not an Ed25519 key: move it away to have a new one made")
    return key


def checking_key(path: Path) -> Ed25519PublicKey:
    """A public key from its file."""
    with explained(path):
        key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise DataLoss("KEY_UNREADABLE", f"{path} is not an Ed25519 public key: give the {_PUBLIC} of the signer")
    return key


def _make_key(folder: Path) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / _PUBLIC).write_bytes(public)
    draft = folder / f"{_PRIVATE}.new"
    draft.touch(0o600)
    draft.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    draft.replace(folder / _PRIVATE)
