"""Settings with an identity, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.auth import Role, mint_token, prepare_identity
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import Settings
from tests.infra.peer import Sessions

Mint = Callable[[Role], str]


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()  # pyright: ignore[reportAbstractUsage]  # the rest stays unimplemented


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with keys and tokens in place."""
    found = Settings(data_dir=tmp_path, listen="127.0.0.1:0", drain_grace=2.0)
    clock = SystemClock()
    prepare_identity(found, clock, system_ids(clock))
    return found


@pytest.fixture
def mint(settings: Settings) -> Mint:
    """Makes a token of a role for tenant "acme"."""
    return lambda role: mint_token(settings, SystemClock(), subject="ada", tenant="acme", role=role, ttl=60)
