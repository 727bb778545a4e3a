"""What a killed `up` may have left behind."""

from __future__ import annotations

from infra.clock import Clock
from infra.digest import digest_hex, digest_of
from infra.processes import alive, end_group, find_marked, read_pidfile
from infra.settings import Settings

GRACE = 2.0


def marker_of(settings: Settings) -> str:
    """In the environment of every process of this mesh, and of the processes that those start."""
    return f"skyagent-up-{digest_hex(digest_of(str(settings.data_dir).encode()))[:16]}"


async def end_leftovers(settings: Settings, clock: Clock) -> list[int]:
    """Ends and awaits every process of a former `up` on this data directory; returns their pids."""
    ended: list[int] = []
    for path in sorted((settings.run_dir / "pids").glob("*.pid")):
        process = read_pidfile(path)
        if process and alive(process):
            await end_group(process, clock, GRACE)
            ended.append(process.pid)
        path.unlink(missing_ok=True)
    # Browsers live in process groups of their own, below a worker that may be dead.
    for process in find_marked(marker_of(settings)):
        await end_group(process, clock, GRACE)
        ended.append(process.pid)
    return ended
