"""LangGraph's savers under the bench's load: a graph that goes 20 times through one node, durability="sync".

python langgraph_steps.py FOLDER|POSTGRES_URL SECONDS AT_ONCE...      (in the peers' environment)
"""

import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

import uvloop
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from measure import PAYLOAD, STEPS, Run, measure, say_settings
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

POOL = 20


class State(TypedDict):
    step: int
    payload: str


async def step(state: State) -> State:
    return {"step": state["step"] + 1, "payload": PAYLOAD.decode()}


def twenty_steps(saver: BaseCheckpointSaver) -> Run:
    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["step"] >= STEPS else "step")
    compiled = graph.compile(checkpointer=saver)

    async def run(tell: Callable[[float], None]) -> None:
        start = time.perf_counter()
        config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": 2 * STEPS}
        await compiled.ainvoke({"step": 0, "payload": ""}, config, durability="sync")
        for _ in range(STEPS):
            tell((time.perf_counter() - start) / STEPS)

    return run


@asynccontextmanager
async def opened(where: str) -> AsyncGenerator[tuple[str, BaseCheckpointSaver, dict[str, str]]]:
    """The name under which the figures are told, the saver, and what it was set to."""
    if where.startswith("postgresql:"):
        one = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(where, min_size=POOL, max_size=POOL, kwargs=one) as pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield "langgraph-pg", saver, {"pool": str(POOL)}
        return
    async with AsyncSqliteSaver.from_conn_string(f"{where}/langgraph.db") as saver:
        await saver.setup()
        modes = [
            await (await saver.conn.execute(f"PRAGMA {name}")).fetchone() for name in ("journal_mode", "synchronous")
        ]
        yield "langgraph", saver, {"journal_mode": modes[0][0], "synchronous": modes[1][0]}


async def main(where: str, seconds: float, at_once: list[int]) -> None:
    async with opened(where) as (name, saver, settings):
        say_settings(name, **settings, durability="sync", payload="200 B", latency="mean of a run's steps")
        for runs in at_once:
            await measure(name, twenty_steps(saver), at_once=runs, seconds=seconds)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), [int(each) for each in sys.argv[3:]]))
