import asyncio
import sys
from pathlib import Path

import pytest

from control.journal.audit import verify_all
from tests.control.journal.world import TENANT, opened

ACKNOWLEDGED = 300


async def killed_writer(path: Path, runs: int) -> dict[tuple[str, int], str]:
    """What a process had acknowledged, by (run, seq), when it was killed in the middle of its work."""
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.control.journal.writer_process", str(path), str(runs)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    lines = [await writer.stdout.readline() for _ in range(ACKNOWLEDGED)]
    writer.kill()
    lines += (await writer.stdout.read()).splitlines(keepends=True)
    await writer.wait()
    whole = [line.split() for line in lines if line.endswith(b"\n")]
    return {(run_id.decode(), int(seq)): hash_.decode() for run_id, seq, hash_ in whole}


@pytest.mark.parametrize("runs", [1, 16])
async def test_no_acknowledged_append_is_lost_when_the_writer_is_killed(tmp_path: Path, runs: int) -> None:
    path = tmp_path / "journal.db"
    acknowledged = await killed_writer(path, runs)
    assert len(acknowledged) >= ACKNOWLEDGED
    async with opened(path, seed=8) as world:
        for (run_id, seq), hash_ in acknowledged.items():
            (event,) = await world.journal.read(run_id, after_seq=seq - 1, limit=1)
            assert event.hash.hex() == hash_
        async for found in verify_all(world.journal):
            assert found.bad_seq is None
        for run in await world.journal.heads():
            projection = (await world.journal.listing(run.run_id, tenant=TENANT)).projection
            assert projection is None or projection.body == b"%d" % (run.head_seq - 2)


async def test_the_next_process_claims_at_once_what_the_killed_one_owned(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await killed_writer(path, 4)
    async with opened(path, seed=8) as world:
        claimed = await world.taken_over()
        assert [run.epoch for run in claimed] == [2] * 4
        for run in claimed:
            assert (await world.journal.append(world.result(run))).seq == run.head_seq + 1
