"""The rules of pyproject.toml speak of everything that is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_no_service_of_the_control_plane_is_free_to_import_another() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (independence,) = [contract for contract in contracts if contract["type"] == "independence"]
    services = {path.parent.name for path in ROOT.glob("control/*/service.py")}
    assert set(independence["modules"]) == {f"control.{service}" for service in services}


def test_no_pin_names_a_registry_host() -> None:
    for pins in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in pins.read_text(), pins.name
    for lock in (*ROOT.glob("*/package-lock.json"), *ROOT.glob("docs/*/*/package-lock.json")):
        assert '"resolved"' not in lock.read_text(), f"{lock} wants omit-lockfile-registry-resolved=true in .npmrc"


@pytest.mark.parametrize(("pins", "groups"), [("run", ["build"]), ("test", ["build", "dev"])])
def test_every_dependency_is_pinned_in_the_range_it_states(pins: str, groups: list[str]) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / f"{pins}.txt").read_text(), re.MULTILINE))
    stated = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["evals"],
        *(each for group in groups for each in PROJECT["dependency-groups"][group]),
    ]
    for requirement in map(Requirement, stated):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements/{pins}.txt; run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is pinned to {version}"
