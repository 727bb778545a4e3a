import asyncio

import pytest

from evals.end_to_end.command import ended


@pytest.mark.parametrize("program", ["true", "cat"])
async def test_a_command_that_nobody_waits_for_is_ended_also_when_it_has_ended_by_itself(program: str) -> None:
    child = await asyncio.create_subprocess_exec(program, stdin=asyncio.subprocess.PIPE)
    if program == "true":
        await child.wait()
    await ended(child)
    assert child.returncode == (0 if program == "true" else -9)
