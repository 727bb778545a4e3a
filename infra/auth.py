"""Who calls, and what their role may do: ES256 tokens (RFC 7519), keys as a JWK set (RFC 7517), one table of grants."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict, cast

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from jwt.types import Options

from infra.clock import Clock
from infra.digest import digest_hex, digest_of
from infra.disk import explained
from infra.errors import Internal, Precondition, Unauthenticated
from infra.ids import Ids
from infra.settings import Settings
from skyagent.common.v1 import options_pb2 as options

ISSUER = AUDIENCE = "skyagent"
TOKEN_LIFE = 30 * 86400.0
"""Seconds that a token written at start lives; it is written anew when half of it is over."""
SYSTEM_TENANT = "system"
"""Tenant of a service that acts for nobody; it owns nothing."""
_ALGORITHM = "ES256"
_CACHED_TOKENS = 1024


class Role(StrEnum):
    """What a token says its bearer is."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"
    WORKER = "worker"
    INTERNAL = "internal"


_VIEW, _OPERATE, _APPROVE = options.PERMISSION_VIEW, options.PERMISSION_OPERATE, options.PERMISSION_APPROVE

GRANTS: Mapping[Role, frozenset[options.Permission.ValueType]] = {
    Role.VIEWER: frozenset({_VIEW}),
    Role.OPERATOR: frozenset({_VIEW, _OPERATE}),
    Role.APPROVER: frozenset({_VIEW, _APPROVE}),
    Role.ADMIN: frozenset({_VIEW, _OPERATE, _APPROVE, options.PERMISSION_ADMINISTER}),
    Role.WORKER: frozenset({options.PERMISSION_WORK}),
    # Approving is for people only.
    Role.INTERNAL: frozenset({_VIEW, _OPERATE, options.PERMISSION_INTERNAL}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as their token says."""

    subject: str
    tenant: str
    role: Role

    def may(self, permission: options.Permission.ValueType) -> bool:
        return permission == options.PERMISSION_PUBLIC or permission in GRANTS[self.role]


_caller: ContextVar[Caller] = ContextVar("caller")
_acting: ContextVar[str] = ContextVar("acting_tenant")


def caller() -> Caller:
    """Who calls the handler that runs now. A handler takes the tenant from here and from nowhere else."""
    try:
        return _caller.get()
    except LookupError:
        raise Internal(
            "NO_CALLER", "caller() was asked outside of a request; use acting_for(tenant) in a loop"
        ) from None


def receive(who: Caller) -> None:
    """Make `who` the caller of the current request; for the interceptor."""
    _caller.set(who)


@contextmanager
def received(who: Caller) -> Generator[None]:
    """Make `who` the caller in this block, for a request that comes from this very task and is served in it."""
    caller_before, acting_before = _caller.set(who), _acting.set(who.tenant)
    try:
        yield
    finally:
        _caller.reset(caller_before)
        _acting.reset(acting_before)


@contextmanager
def acting_for(tenant: str) -> Generator[None]:
    """Peers that are called in this block see this tenant; only the role internal may."""
    before = _acting.set(tenant)
    try:
        yield
    finally:
        _acting.reset(before)


def acting_tenant() -> str | None:
    """The tenant to tell a peer: of acting_for, else of the request that is being served."""
    who = _caller.get(None)
    return _acting.get(who.tenant if who else None)


class _Claims(TypedDict):
    sub: str
    tenant: str
    role: str
    exp: float


class Verifier:
    """Checks tokens against keys/jwks.json; one that was seen before costs a lookup."""

    def __init__(self, keys_dir: Path, clock: Clock) -> None:
        self._path = keys_dir / "jwks.json"
        self._clock = clock
        self._keys = _read_jwks(self._path)
        self._seen: dict[str, tuple[Caller, float]] = {}

    def verify(self, token: str) -> Caller:
        """The bearer of a token; raises Unauthenticated."""
        who, expires = self._seen.get(token) or self._check(token)
        if expires <= self._clock.now_ms() / 1000:
            self._seen.pop(token, None)
            raise Unauthenticated("TOKEN_EXPIRED", f"the token of {who.subject!r} has expired; get a new one")
        return who

    def _check(self, token: str) -> tuple[Caller, float]:
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid", ""))
            loose: Options = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False}
            payload = jwt.decode(token, key, [_ALGORITHM], loose, issuer=ISSUER, audience=AUDIENCE)
            claims = cast("_Claims", payload)
            found = Caller(claims["sub"], claims["tenant"], Role(claims["role"])), float(claims["exp"])
        except (jwt.PyJWTError, KeyError, ValueError, TypeError) as bad:
            raise Unauthenticated("TOKEN_INVALID", f"the token was refused: {bad}; use one made here") from bad
        if len(self._seen) >= _CACHED_TOKENS:
            self._seen.pop(next(iter(self._seen)))
        self._seen[token] = found
        return found

    def _key(self, kid: str) -> jwt.PyJWK:
        if kid not in self._keys:
            self._keys = _read_jwks(self._path)
        if kid not in self._keys:
            raise jwt.InvalidKeyError(f"no key {kid!r}")
        return self._keys[kid]


def mint_token(settings: Settings, clock: Clock, *, subject: str, tenant: str, role: Role, ttl: float) -> str:
    """A signed token that lives `ttl` seconds; needs the private key, so only the machine of the control plane can."""
    path = settings.keys_dir / "signing.pem"
    try:
        pem = path.read_bytes()
    except OSError as bad:
        raise Precondition("NO_SIGNING_KEY", f"cannot read {path}: {bad}; run `skyagent up` once to make it") from bad
    now = clock.now_ms() / 1000
    key = _load_key(pem)
    who = {"sub": subject, "tenant": tenant, "role": role.value}
    claims = {**who, "iss": ISSUER, "aud": AUDIENCE, "iat": int(now), "exp": now + ttl}
    return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": _kid(key.public_key())})


def prepare_identity(settings: Settings, clock: Clock, ids: Ids) -> None:
    """Make what is missing of keys/ and the token files; safe to run again, and by two processes at once.

    Raises Exhausted DISK_FULL and Precondition DATA_UNWRITABLE.
    """
    with explained(settings.data_dir):
        _prepare_identity(settings, clock, ids)


def _prepare_identity(settings: Settings, clock: Clock, ids: Ids) -> None:
    for folder in (settings.data_dir, settings.keys_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_key(settings.keys_dir, ids)
    for path, subject, tenant, role in (
        (settings.token_path, "local", settings.tenant, Role.ADMIN),
        (settings.internal_token_path, "control-plane", SYSTEM_TENANT, Role.INTERNAL),
    ):
        _prepare_token(path, Caller(subject, tenant, role), settings, clock, ids)
    for path in settings.workers_dir.glob("*/token"):
        _prepare_token(path, Caller(path.parent.name, settings.tenant, Role.WORKER), settings, clock, ids)


def prepare_worker_token(settings: Settings, clock: Clock, ids: Ids, worker_id: str) -> Path:
    """The token file of one worker, written anew when it must be and the key is on this machine.

    Raises Precondition: there is none, and no key to make one.
    """
    path = settings.worker_token_path(worker_id)
    if (settings.keys_dir / "signing.pem").exists() or not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        who = Caller(worker_id, settings.tenant, Role.WORKER)
        _prepare_token(path, who, settings, clock, ids)
    return path


def _prepare_token(path: Path, who: Caller, settings: Settings, clock: Clock, ids: Ids) -> None:
    if not _still_good(path, who, Verifier(settings.keys_dir, clock), clock):
        token = mint_token(settings, clock, subject=who.subject, tenant=who.tenant, role=who.role, ttl=TOKEN_LIFE)
        _write_atomically(path, token.encode(), ids, os.replace)


def _still_good(path: Path, who: Caller, verifier: Verifier, clock: Clock) -> bool:
    try:
        token = path.read_text().strip()
        expires = float(jwt.decode(token, options={"verify_signature": False})["exp"])
        return verifier.verify(token) == who and expires - clock.now_ms() / 1000 > TOKEN_LIFE / 2
    except (OSError, Unauthenticated, jwt.PyJWTError, KeyError):
        return False


def _make_key(keys_dir: Path, ids: Ids) -> None:
    path = keys_dir / "signing.pem"
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with suppress(FileExistsError):  # another process was first: its key it is
            _write_atomically(path, pem, ids, os.link)
    public = _load_key(path.read_bytes()).public_key()
    jwk = {**ECAlgorithm.to_jwk(public, as_dict=True), "kid": _kid(public), "use": "sig", "alg": _ALGORITHM}
    published, content = keys_dir / "jwks.json", json.dumps({"keys": [jwk]}).encode()
    if not published.is_file() or published.read_bytes() != content:  # a start needs no room on the disk
        _write_atomically(published, content, ids, os.replace)


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Precondition("WRONG_SIGNING_KEY", "keys/signing.pem is no P-256 key; remove keys/ to have it made anew")
    return key


def _kid(public: ec.EllipticCurvePublicKey) -> str:
    """Names a key by its own bytes."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return digest_hex(digest_of(der))[:16]


def _read_jwks(path: Path) -> dict[str, jwt.PyJWK]:
    try:
        return {key.key_id: key for key in jwt.PyJWKSet.from_json(path.read_text()).keys if key.key_id}
    except (OSError, ValueError, jwt.PyJWTError) as bad:
        raise Precondition("NO_KEYS", f"cannot read {path}: {bad}; run `skyagent up` once to make it") from bad


def _write_atomically(path: Path, content: bytes, ids: Ids, place: Callable[[Path, Path], None]) -> None:
    """Readable by the owner only; `place` is os.replace, or os.link where the first one wins."""
    draft = path.with_name(f"{path.name}.{ids.uuid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        place(draft, path)
    finally:
        draft.unlink(missing_ok=True)
