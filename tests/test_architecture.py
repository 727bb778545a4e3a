"""The rules of pyproject.toml speak of everything that is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What services may meet in, and data that is no code.
NOT_SERVICES = {"core", "journal", "templates", "__pycache__"}


def test_no_service_of_the_control_plane_is_free_to_import_another() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (independence,) = [contract for contract in contracts if contract["type"] == "independence"]
    services = {path.name for path in (ROOT / "control").iterdir() if path.is_dir()} - NOT_SERVICES
    assert set(independence["modules"]) == {f"control.{service}" for service in services}


def test_no_file_names_a_registry_host() -> None:
    pins = [*(ROOT / "requirements").iterdir(), *ROOT.glob("dashboard/package-lock.json")]
    for path in pins:
        assert "://" not in path.read_text().replace('"url": "https://', ""), path.name
