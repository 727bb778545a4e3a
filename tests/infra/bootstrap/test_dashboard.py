"""A real npm on a package of its own that needs no network; its build counts its runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infra.bootstrap import node
from infra.bootstrap.action import BootstrapError, Doer
from infra.bootstrap.dashboard import ensure
from infra.bootstrap.python import Environment

BUILD = "node -e \"const fs=require('fs');fs.mkdirSync('dist',{recursive:true});fs.appendFileSync('dist/runs','x')\""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    dashboard = tmp_path / "dashboard"
    (dashboard / "src").mkdir(parents=True)
    (dashboard / "src" / "main.ts").write_text("one\n")
    package = {"name": "dashboard", "version": "0.0.0", "private": True}
    (dashboard / "package.json").write_text(json.dumps(package | {"scripts": {"build": BUILD}}))
    lock = {"name": "dashboard", "version": "0.0.0", "lockfileVersion": 3, "packages": {"": package}}
    (dashboard / "package-lock.json").write_text(json.dumps(lock))
    made = Environment(tmp_path)
    node.ensure(made)
    return made


@pytest.fixture
def doer(tmp_path: Path) -> Doer:
    return Doer(tmp_path / "bootstrap.log", pause_s=0)


def builds(environment: Environment) -> int:
    return len((environment.root / "dashboard" / "dist" / "runs").read_text())


def test_it_is_built_once_while_nothing_changes(environment: Environment, doer: Doer) -> None:
    ensure(environment, doer)
    ensure(environment, doer)
    assert builds(environment) == 1


def test_a_changed_source_builds_it_again(environment: Environment, doer: Doer) -> None:
    ensure(environment, doer)
    (environment.root / "dashboard" / "src" / "main.ts").write_text("two\n")
    ensure(environment, doer)
    assert builds(environment) == 2


def test_a_build_that_fails_is_not_remembered(environment: Environment, doer: Doer) -> None:
    package = environment.root / "dashboard" / "package.json"
    good = package.read_text()
    package.write_text(good.replace(json.dumps(BUILD), '"node -e process.exit(1)"'))
    with pytest.raises(BootstrapError, match="build the dashboard"):
        ensure(environment, doer)
    package.write_text(good)
    ensure(environment, doer)
    assert builds(environment) == 1


def test_a_repository_without_a_dashboard_is_left_alone(tmp_path: Path, doer: Doer) -> None:
    ensure(Environment(tmp_path), doer)
    assert not doer.log.exists()


def test_node_is_linked_again_when_the_wheel_went_elsewhere(environment: Environment) -> None:
    link = environment.folder / "bin" / "node"
    link.unlink()
    link.symlink_to("gone")
    node.ensure(environment)
    assert link.resolve().is_file()
