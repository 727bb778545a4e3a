from __future__ import annotations

from control.services import ALL
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.policy.v1.decision_pb2 import VERDICT_ALLOW, VERDICT_ASK
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.meshed import CallingAs, Serve
from tests.control.mission_api.world import client_of

ROWS = "Invoice no.,Total\nA-1,12.00\nA-2,99999.00\n"


async def test_a_dry_run_judges_every_step_of_every_record_and_ends_without_a_worker(
    serve: Serve, calling_as: CallingAs
) -> None:
    client = client_of(calling_as, await serve(ALL.values()))
    spec = mission_pb2.MissionSpec(goal="enter them", template="data_entry", dry_run=True)
    given = {
        "site": "http://127.0.0.1:8000/",
        "form": "/add/",
        "rows": ROWS,
        "username": "u",
        "password": "{{secret:p}}",
    }
    spec.inputs.extend(mission_pb2.Input(name=name, value=value) for name, value in given.items())
    spec.limits.approve_above_cents = 1_000_00
    run_id = (await client.missions.CreateMission(missions_pb.CreateMissionRequest(spec=spec))).run_id
    events = [item.event.body async for item in client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id))]
    decisions = [body.policy_decided.decision for body in events if body.HasField("policy_decided")]
    assert {decision.verdict for decision in decisions} == {VERDICT_ALLOW, VERDICT_ASK}
    assert [list(one.policy_ids) for one in decisions if one.verdict == VERDICT_ASK] == [["ask.amount"]]
    assert not any(body.HasField("step_intended") or body.HasField("group_restarted") for body in events)
    finished = next(body.run_finished for body in events if body.HasField("run_finished"))
    assert (finished.phase, finished.reason) == (ev.RUN_PHASE_SUCCEEDED, "DRY_RUN")
