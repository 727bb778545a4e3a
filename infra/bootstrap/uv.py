"""uv, which makes environments and fills them from pins."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.bootstrap.action import FOR_DOWNLOADS, Action, Doer


@dataclass(frozen=True, slots=True)
class Uv:
    """The uv at `program`. Environments get the Python that runs the bootstrap."""

    program: str
    doer: Doer

    def make(self, folder: Path) -> None:
        """Makes an empty environment, in place of whatever is there."""
        command = [self.program, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
        self._do(Action(f"make the virtual environment {folder.name}", command))

    def sync(self, environment: Path, pins: Path) -> None:
        """Makes an environment hold exactly what is pinned."""
        command = [*self._pip("sync", environment), "--require-hashes", str(pins)]
        self._do(Action(f"install the wheels of {pins.parent.name}/{pins.name}", command, attempts=FOR_DOWNLOADS))

    def install_project(self, environment: Path, root: Path) -> None:
        """Puts the project on the import path; its build tool is among the pins, so that nothing else is fetched."""
        command = [*self._pip("install", environment), "--no-deps", "--no-build-isolation", "--editable", str(root)]
        self._do(Action("install this project", command))

    def _pip(self, verb: str, environment: Path) -> list[str]:
        python = str(environment / "bin" / "python")
        return [self.program, "pip", verb, "--python", python, "--compile-bytecode"]

    def _do(self, action: Action) -> None:
        # Hard links into a cache on another file system only warn; and no Python but the caller's is wanted.
        settings = {"UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy"), "UV_PYTHON_DOWNLOADS": "never"}
        self.doer.do(Action(action.title, action.command, environment=settings, attempts=action.attempts))


def find(root: Path, doer: Doer) -> Uv:
    """The machine's uv, or one of our own in build/uv: pip may not touch Debian's Python (PEP 668)."""
    found = shutil.which("uv")
    if found is not None:
        return Uv(found, doer)
    home = root / "build" / "uv"
    program = home / "bin" / "uv"
    if not program.exists():
        doer.do(Action("make a place for uv in build/uv", [sys.executable, "-m", "venv", "--clear", str(home)]))
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pins = str(root / "requirements" / "uv.txt")
        doer.do(Action("fetch uv", [*pip, "--require-hashes", "--requirement", pins], attempts=FOR_DOWNLOADS))
    return Uv(str(program), doer)
