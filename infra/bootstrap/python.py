"""The virtual environment: the pinned wheels, and this project in it."""

from dataclasses import dataclass
from pathlib import Path

from infra.bootstrap import uv
from infra.bootstrap.action import Doer
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

    @property
    def stamp(self) -> Path:
        """Remembers what was installed last; inside, so that it goes when the environment goes."""
        return self.folder / "installed.stamp"

    def pins(self, purpose: Purpose) -> Path:
        """The exact versions, with hashes, that a purpose installs."""
        return self.root / "requirements" / purpose.pins

    def expected(self, purpose: Purpose) -> str:
        """What the stamp says when the environment is complete for a purpose."""
        return digest([self.pins(purpose), self.root / "pyproject.toml"], purpose.pins, str(self.root))

    def is_ready(self, purpose: Purpose) -> bool:
        """Whether everything is there. What a later purpose installed serves an earlier one too."""
        if not self.python.exists():
            return False
        return any(is_current(self.stamp, self.expected(each)) for each in Purpose if each >= purpose)


def ensure(environment: Environment, purpose: Purpose, doer: Doer) -> None:
    """Makes the environment complete for the purpose."""
    if environment.is_ready(purpose):
        return
    tool = uv.find(environment.root, doer)
    if not environment.python.exists():
        tool.make(environment.folder)
    tool.sync(environment.folder, environment.pins(purpose))
    tool.install_project(environment.folder, environment.root)
    write(environment.stamp, environment.expected(purpose))
