"""The peers we are measured beside, in an environment of their own: their versions are none of our business."""

from pathlib import Path

from infra.bootstrap import uv
from infra.bootstrap.action import Doer
from infra.bootstrap.stamp import digest, is_current, write


def ensure(root: Path, doer: Doer) -> None:
    """Makes build/peers hold what requirements/peers.txt pins."""
    folder = root / "build" / "peers"
    pins = root / "requirements" / "peers.txt"
    stamp = folder / "installed.stamp"
    expected = digest([pins], str(root))
    if is_current(stamp, expected):
        return
    tool = uv.find(root, doer)
    tool.make(folder)
    tool.sync(folder, pins)
    write(stamp, expected)
