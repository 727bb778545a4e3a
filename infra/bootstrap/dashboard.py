"""The dashboard: its packages and its built pages, made by the environment's own node."""

import os

from infra.bootstrap.action import FOR_DOWNLOADS, Action, Doer
from infra.bootstrap.python import Environment
from infra.bootstrap.stamp import digest, is_current, write

# What the built pages are made from; tests are not.
SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


def ensure(environment: Environment, doer: Doer) -> None:
    """Installs the packages when the lock file changed, and builds when a source did."""
    dashboard = environment.root / "dashboard"
    if not (dashboard / "package-lock.json").exists():
        return
    npm = environment.folder / "bin" / "npm"
    # npm and the tools it runs ask for `node` on the PATH.
    path = {"PATH": os.pathsep.join((str(npm.parent), os.environ.get("PATH", os.defpath)))}
    installed = dashboard / "node_modules" / "installed.stamp"
    lock = digest([dashboard / "package-lock.json"])
    if not is_current(installed, lock):
        install = [str(npm), "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        doer.do(Action("install the dashboard's packages", install, dashboard, path, FOR_DOWNLOADS))
        write(installed, lock)
    built = dashboard / "dist" / "built.stamp"
    sources = digest([dashboard / name for name in SOURCES])
    if not is_current(built, sources):
        doer.do(Action("build the dashboard", [str(npm), "run", "build"], dashboard, path))
        write(built, sources)
