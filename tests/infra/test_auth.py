import json
import stat
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from infra.auth import (
    GRANTS,
    TOKEN_LIFE,
    Caller,
    Role,
    Verifier,
    caller,
    mint_token,
    prepare_identity,
    prepare_worker_token,
)
from infra.clock import ManualClock
from infra.errors import Internal, Precondition, Unauthenticated
from infra.ids import seeded_ids
from infra.settings import Settings
from skyagent.common.v1 import options_pb2 as options

Mint = Callable[[Role], str]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def prepared(tmp_path: Path, clock: ManualClock) -> Settings:
    settings = Settings(data_dir=tmp_path / "data", tenant="acme")
    prepare_identity(settings, clock, seeded_ids(1, clock))
    prepare_worker_token(settings, clock, seeded_ids(3, clock), "noop-1")
    return settings


def test_the_token_files_are_of_the_roles_they_are_for(prepared: Settings, clock: ManualClock) -> None:
    verifier = Verifier(prepared.keys_dir, clock)
    paths = (prepared.token_path, prepared.worker_token_path("noop-1"), prepared.internal_token_path)
    assert [verifier.verify(path.read_text()) for path in paths] == [
        Caller("local", "acme", Role.ADMIN),
        Caller("noop-1", "acme", Role.WORKER),
        Caller("control-plane", "system", Role.INTERNAL),
    ]


def test_secrets_are_readable_by_their_owner_only(prepared: Settings) -> None:
    secrets = [prepared.keys_dir / "signing.pem", prepared.token_path, prepared.worker_token_path("noop-1")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE(prepared.keys_dir.stat().st_mode) == 0o700


def test_preparing_again_changes_nothing(prepared: Settings, clock: ManualClock) -> None:
    before = {path: path.read_bytes() for path in prepared.data_dir.rglob("*") if path.is_file()}
    prepare_identity(prepared, clock, seeded_ids(2, clock))
    assert {path: path.read_bytes() for path in prepared.data_dir.rglob("*") if path.is_file()} == before


async def test_a_token_is_written_anew_when_half_its_life_is_over(prepared: Settings, clock: ManualClock) -> None:
    old = prepared.token_path.read_text()
    clock.jump(TOKEN_LIFE / 2 + 1)
    prepare_identity(prepared, clock, seeded_ids(2, clock))
    assert prepared.token_path.read_text() != old


def test_a_token_of_another_installation_is_replaced(prepared: Settings, clock: ManualClock, tmp_path: Path) -> None:
    other = Settings(data_dir=tmp_path / "other")
    prepare_identity(other, clock, seeded_ids(3, clock))
    prepared.token_path.write_text(other.token_path.read_text())
    prepare_identity(prepared, clock, seeded_ids(2, clock))
    assert Verifier(prepared.keys_dir, clock).verify(prepared.token_path.read_text()).tenant == "acme"


def test_a_token_signed_by_another_key_is_refused(prepared: Settings, clock: ManualClock, tmp_path: Path) -> None:
    other = Settings(data_dir=tmp_path / "other")
    prepare_identity(other, clock, seeded_ids(3, clock))
    with pytest.raises(Unauthenticated, match="no key"):
        Verifier(prepared.keys_dir, clock).verify(other.token_path.read_text())


def test_a_token_without_a_signature_is_refused(prepared: Settings, clock: ManualClock) -> None:
    kid = jwt.get_unverified_header(prepared.token_path.read_text())["kid"]
    claims = jwt.decode(prepared.token_path.read_text(), options={"verify_signature": False})
    forged = jwt.encode({**claims, "role": "internal"}, "", algorithm="none", headers={"kid": kid})
    with pytest.raises(Unauthenticated, match="refused"):
        Verifier(prepared.keys_dir, clock).verify(forged)


def test_a_token_whose_claims_were_altered_is_refused(prepared: Settings, clock: ManualClock) -> None:
    head, _, signature = prepared.worker_token_path("noop-1").read_text().split(".")
    claims = prepared.token_path.read_text().split(".")[1]
    with pytest.raises(Unauthenticated, match="Signature"):
        Verifier(prepared.keys_dir, clock).verify(f"{head}.{claims}.{signature}")


@pytest.mark.parametrize("claim", ["iss", "aud"])
def test_a_token_made_for_something_else_is_refused(prepared: Settings, clock: ManualClock, claim: str) -> None:
    claims = jwt.decode(prepared.token_path.read_text(), options={"verify_signature": False})
    header = jwt.get_unverified_header(prepared.token_path.read_text())
    pem = (prepared.keys_dir / "signing.pem").read_text()
    other = jwt.encode({**claims, claim: "elsewhere"}, pem, algorithm="ES256", headers={"kid": header["kid"]})
    with pytest.raises(Unauthenticated):
        Verifier(prepared.keys_dir, clock).verify(other)


def test_a_role_that_does_not_exist_is_refused(prepared: Settings, clock: ManualClock) -> None:
    claims = jwt.decode(prepared.token_path.read_text(), options={"verify_signature": False})
    header = jwt.get_unverified_header(prepared.token_path.read_text())
    pem = (prepared.keys_dir / "signing.pem").read_text()
    other = jwt.encode({**claims, "role": "emperor"}, pem, algorithm="ES256", headers={"kid": header["kid"]})
    with pytest.raises(Unauthenticated, match="emperor"):
        Verifier(prepared.keys_dir, clock).verify(other)


def test_a_token_expires_although_it_was_seen_before(prepared: Settings, clock: ManualClock) -> None:
    token = mint_token(prepared, clock, subject="ada", tenant="acme", role=Role.VIEWER, ttl=60)
    verifier = Verifier(prepared.keys_dir, clock)
    assert verifier.verify(token).subject == "ada"
    clock.jump(60)
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(token)


def test_a_key_that_was_added_later_is_found(prepared: Settings, clock: ManualClock, tmp_path: Path) -> None:
    verifier = Verifier(prepared.keys_dir, clock)
    other = Settings(data_dir=tmp_path / "other", tenant="later")
    prepare_identity(other, clock, seeded_ids(3, clock))
    sets = [json.loads((s.keys_dir / "jwks.json").read_text())["keys"] for s in (prepared, other)]
    (prepared.keys_dir / "jwks.json").write_text(json.dumps({"keys": sets[0] + sets[1]}))
    assert verifier.verify(other.token_path.read_text()).tenant == "later"


def test_the_key_set_holds_no_private_part(prepared: Settings) -> None:
    (key,) = json.loads((prepared.keys_dir / "jwks.json").read_text())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_minting_without_the_private_key_says_how_to_make_it(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(Precondition, match="skyagent up"):
        mint_token(Settings(data_dir=tmp_path), clock, subject="a", tenant="b", role=Role.VIEWER, ttl=1)


def test_only_people_may_approve() -> None:
    assert {role for role, granted in GRANTS.items() if options.PERMISSION_APPROVE in granted} == {
        Role.APPROVER,
        Role.ADMIN,
    }


def test_every_permission_is_granted_to_some_role() -> None:
    granted = set[int]().union(*GRANTS.values())
    needs_none = {options.PERMISSION_UNSPECIFIED, options.PERMISSION_PUBLIC}
    assert granted == set(options.Permission.values()) - needs_none


def test_there_is_no_caller_outside_of_a_request() -> None:
    with pytest.raises(Internal, match="acting_for"):
        caller()


def test_a_workers_token_that_was_brought_from_elsewhere_is_taken_as_it_is(tmp_path: Path, clock: ManualClock) -> None:
    settings, ids = Settings(data_dir=tmp_path), seeded_ids(1, clock)
    with pytest.raises(Precondition, match="cannot read"):
        prepare_worker_token(settings, clock, ids, "noop-1")
    settings.worker_token_path("noop-1").write_text("brought")
    assert prepare_worker_token(settings, clock, ids, "noop-1").read_text() == "brought"
