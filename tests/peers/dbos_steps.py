"""DBOS under the bench's load: a workflow of 20 steps, each recorded before the next one begins.

python dbos_steps.py FOLDER|POSTGRES_URL SECONDS AT_ONCE...      (in the peers' environment)
"""

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from dbos import DBOS, DBOSConfig
from measure import PAYLOAD, STEPS, measure, say_settings

_tell: dict[str, Callable[[float], None]] = {}


@DBOS.step()
async def step(_n: int) -> str:
    return PAYLOAD.decode()


@DBOS.workflow()
async def twenty_steps() -> None:
    for n in range(STEPS):
        start = time.perf_counter()
        await step(n)
        _tell["now"](time.perf_counter() - start)


async def run(tell: Callable[[float], None]) -> None:
    _tell["now"] = tell
    handle = await DBOS.start_workflow_async(twenty_steps)
    await handle.get_result()


async def main(where: str, seconds: float, at_once: list[int]) -> None:
    shared = where.startswith("postgresql:")
    name, url = ("dbos-pg", where) if shared else ("dbos", f"sqlite:///{where}/dbos.db")
    DBOS(config=DBOSConfig(name="bench", system_database_url=url, log_level="ERROR", run_admin_server=False))
    DBOS.launch()
    say_settings(name, **({"payload": "200 B"} if shared else sqlite_settings(Path(where) / "dbos.db")))
    for runs in at_once:
        await measure(name, run, at_once=runs, seconds=seconds)
    DBOS.destroy()


def sqlite_settings(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        journal_mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    own = f"{synchronous} (DBOS leaves SQLite's own)"
    return {"journal_mode": journal_mode, "synchronous": own, "payload": "200 B"}


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), [int(each) for each in sys.argv[3:]]))
