"""Hello, and what comes before Welcome."""

from __future__ import annotations

from gateway.conformance.bench import Bench
from gateway.conformance.checks.claims import claim
from gateway.conformance.stream import QUIET, Terms
from gateway.conformance.verdicts import Check, Failed

ACTION = "noop"
LEAST_STEPS = 4


async def hello_first(bench: Bench) -> None:
    """Held up for a while between Hello and Welcome."""
    stream = await bench.dialled()
    hello = stream.hello
    await bench.clock.sleep(QUIET)
    stream.welcome(Terms())
    if faults := bench.plane.faults.by_check.get("hello-first"):
        raise Failed(faults[0])
    named = bench.place.worker_id
    claim(not named or hello.worker_id == named, f"it calls itself {hello.worker_id!r}; it was told to be {named!r}")
    claim(not hello.held, f"a journal that was made just now holds {len(hello.held)} attempts")


async def offers_the_profile(bench: Bench) -> None:
    """What the other checks build on."""
    capabilities = (await bench.stream()).hello.capabilities
    names = {name.partition("/")[0] for name in capabilities.actions}
    claim(ACTION in names, f"it offers {', '.join(sorted(names)) or 'nothing'}, and not {ACTION}/1")
    slots = capabilities.max_concurrent_steps
    claim(slots >= LEAST_STEPS, f"it does {slots} steps at once; the checks need {LEAST_STEPS}")


CHECKS = (
    Check(
        "hello-first",
        "The first frame is Hello, under the worker's own name; nothing else is said before Welcome.",
        hello_first,
    ),
    Check(
        "profile",
        "Under trial a worker offers noop/1, tells the witness of each, and does at least four steps at once.",
        offers_the_profile,
    ),
)
