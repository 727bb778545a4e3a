from __future__ import annotations

from pathlib import Path

import pytest

from infra.bootstrap.purpose import Purpose
from infra.bootstrap.python import Environment
from infra.bootstrap.stamp import write


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A repository with pins and an interpreter, in which nothing was installed yet."""
    (tmp_path / "requirements").mkdir()
    for purpose in Purpose:
        (tmp_path / "requirements" / purpose.pins).write_text(f"{purpose.pins}==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    return Environment(tmp_path)


def installed(environment: Environment, purpose: Purpose) -> None:
    write(environment.stamp, environment.expected(purpose))


def test_an_environment_without_a_stamp_is_not_ready(environment: Environment) -> None:
    assert not environment.is_ready(Purpose.RUN)


def test_what_was_installed_for_tests_serves_a_run_too(environment: Environment) -> None:
    installed(environment, Purpose.TEST)
    assert environment.is_ready(Purpose.RUN)
    assert environment.is_ready(Purpose.TEST)


def test_what_was_installed_for_a_run_does_not_serve_tests(environment: Environment) -> None:
    installed(environment, Purpose.RUN)
    assert not environment.is_ready(Purpose.TEST)


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/run.txt"])
def test_a_changed_pin_or_project_makes_it_unready(environment: Environment, changed: str) -> None:
    installed(environment, Purpose.RUN)
    (environment.root / changed).write_text("changed==2\n")
    assert not environment.is_ready(Purpose.RUN)


def test_a_clone_that_was_moved_is_not_ready(environment: Environment, tmp_path: Path) -> None:
    installed(environment, Purpose.RUN)
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(elsewhere)
    assert not Environment(elsewhere).is_ready(Purpose.RUN)


def test_a_missing_interpreter_makes_it_unready(environment: Environment) -> None:
    installed(environment, Purpose.RUN)
    environment.python.unlink()
    assert not environment.is_ready(Purpose.RUN)
