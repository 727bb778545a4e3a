"""The generator on a copy of the repository's contracts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"
GENERATED = Path("gen/python/skyagent/common/v1/blob_pb2.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))


def generate(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(copy / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_committed_is_what_the_contracts_make(copy: Path) -> None:
    checked = generate(copy, "--check")
    assert checked.returncode == 0, checked.stderr


def test_the_check_names_what_was_edited_left_over_or_is_missing(copy: Path) -> None:
    with (copy / GENERATED).open("a") as edited:
        edited.write("# edited\n")
    (copy / "gen/python/skyagent/left_over.py").touch()
    (copy / "gen/openapi.json").unlink()
    checked = generate(copy, "--check")
    assert checked.returncode == 1
    for name in (GENERATED, "gen/python/skyagent/left_over.py", "gen/openapi.json"):
        assert f"out of date: protos/{name}" in checked.stderr
    assert (copy / GENERATED).read_text().endswith("# edited\n")


def test_generating_repairs_all_of_it(copy: Path) -> None:
    (copy / GENERATED).unlink()
    (copy / "gen/python/skyagent/left_over.py").touch()
    assert generate(copy).returncode == 0
    assert (copy / GENERATED).read_bytes() == (PROTOS / GENERATED).read_bytes()
    assert not (copy / "gen/python/skyagent/left_over.py").exists()


def test_a_contract_that_does_not_compile_fails_and_changes_nothing(copy: Path) -> None:
    (copy / "skyagent/common/v1/blob.proto").write_text("syntax = 'proto3'; message {")
    done = generate(copy)
    assert done.returncode != 0
    assert "blob.proto" in done.stderr
    assert (copy / GENERATED).read_bytes() == (PROTOS / GENERATED).read_bytes()
