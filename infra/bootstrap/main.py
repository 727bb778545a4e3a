"""The command line, and the order of the parts."""

import argparse
import fcntl
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.bootstrap import browser, dashboard, debian, node, peers, python
from infra.bootstrap.action import BootstrapError, Doer, say
from infra.bootstrap.purpose import Purpose
from infra.bootstrap.python import Environment

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str]) -> int:
    """Makes the machine ready; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m infra.bootstrap", description="Installs what is missing.")
    parser.add_argument("purpose", choices=[purpose.name.lower() for purpose in Purpose])
    purpose = Purpose[parser.parse_args(arguments).purpose.upper()]
    try:
        with only_one(ROOT / "build"):
            prepare(Environment(ROOT), purpose, Doer(ROOT / "build" / "bootstrap.log"))
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def prepare(environment: Environment, purpose: Purpose, doer: Doer) -> None:
    """Every part in order; each needs those before it."""
    debian.ensure(purpose, doer)
    python.ensure(environment, purpose, doer)
    node.ensure(environment)
    browser.ensure(environment, doer)
    dashboard.ensure(environment, doer)
    if purpose >= Purpose.BENCH:
        peers.ensure(environment.root, doer)


@contextmanager
def only_one(build: Path) -> Generator[None]:
    """Keeps two makes from installing into the same place at once."""
    build.mkdir(exist_ok=True)
    with (build / "bootstrap.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another bootstrap to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
