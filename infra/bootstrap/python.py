"""uv, the virtual environment, the pinned wheels and this project in it."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from infra.bootstrap.action import FOR_DOWNLOADS, Action, Doer
from infra.bootstrap.purpose import Purpose
from infra.bootstrap.stamp import digest, is_current, write


@dataclass(frozen=True, slots=True)
class Environment:
    """The virtual environment of the repository at `root`."""

    root: Path

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def pins(self, purpose: Purpose) -> Path:
        """The exact versions, with hashes, that a purpose installs."""
        return self.root / "requirements" / purpose.pins

    def expected(self, purpose: Purpose) -> str:
        """What the stamp says when the environment is complete for a purpose."""
        return digest([self.pins(purpose), self.root / "pyproject.toml"], purpose.name, str(self.root))

    def is_ready(self, purpose: Purpose) -> bool:
        """Whether everything is there. What a later purpose installed serves an earlier one too."""
        if not self.python.exists():
            return False
        return any(is_current(self.stamp, self.expected(each)) for each in Purpose if each >= purpose)

    @property
    def stamp(self) -> Path:
        """Remembers what was installed last; inside, so that it goes when the environment goes."""
        return self.folder / "installed.stamp"


def ensure(environment: Environment, purpose: Purpose, doer: Doer) -> None:
    """Makes the environment complete for the purpose."""
    if environment.is_ready(purpose):
        return
    uv = find_uv(environment, doer)
    # A link-mode of copy would be slower and a hard link across devices warns; uv's own Python is not wanted.
    settings = {"UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy"), "UV_PYTHON_DOWNLOADS": "never"}
    if not environment.python.exists():
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment.folder)]
        doer.do(Action("make the virtual environment .venv", make, environment.root, settings))
    into = ["--python", str(environment.python), "--compile-bytecode"]
    sync = [uv, "pip", "sync", "--require-hashes", *into, str(environment.pins(purpose))]
    title = f"install the pinned wheels for `{purpose.name.lower()}`"
    doer.do(Action(title, sync, environment.root, settings, FOR_DOWNLOADS))
    # Its build tool is among the pins, so that nothing unpinned is fetched to build it.
    project = [uv, "pip", "install", "--no-deps", "--no-build-isolation", *into, "--editable", "."]
    doer.do(Action("install this project", project, environment.root, settings))
    write(environment.stamp, environment.expected(purpose))


def find_uv(environment: Environment, doer: Doer) -> str:
    """The machine's uv, or one of our own in build/uv: pip may not touch Debian's Python (PEP 668)."""
    found = shutil.which("uv")
    if found is not None:
        return found
    home = environment.root / "build" / "uv"
    uv = home / "bin" / "uv"
    if not uv.exists():
        pins = environment.root / "requirements" / "uv.txt"
        doer.do(Action("make a place for uv in build/uv", [sys.executable, "-m", "venv", "--clear", str(home)]))
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        fetch = [*pip, "--require-hashes", "--requirement", str(pins)]
        doer.do(Action("fetch uv", fetch, attempts=FOR_DOWNLOADS))
    return str(uv)
