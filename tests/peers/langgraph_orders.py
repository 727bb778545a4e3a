"""LangGraph with durability="sync" under the campaign's kills: a graph that posts one number after another.

python langgraph_orders.py DATABASE URL FIRST COUNT      (in the peers' environment; run again, it resumes)
"""

import asyncio
import sys
import urllib.parse
import urllib.request
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

DATABASE, URL, FIRST, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


class State(TypedDict):
    done: int


def post(number: int) -> None:
    data = urllib.parse.urlencode({"number": f"langgraph-{number}", "amount": "1"}).encode()
    urllib.request.urlopen(URL, data, timeout=30).read()


async def step(state: State) -> State:
    await asyncio.to_thread(post, FIRST + state["done"])
    return {"done": state["done"] + 1}


async def main() -> None:
    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["done"] >= COUNT else "step")
    async with AsyncSqliteSaver.from_conn_string(DATABASE) as saver:
        compiled = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": str(FIRST)}, "recursion_limit": 2 * COUNT + 5}
        known = (await compiled.aget_state(config)).values
        await compiled.ainvoke(None if known else {"done": 0}, config, durability="sync")


asyncio.run(main())
