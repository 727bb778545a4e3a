"""Schedules, as people use them."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from infra.auth import Role
from infra.errors import AlreadyExists, Denied, InvalidArgument, NotFound
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.run.v1 import run_service_pb2 as runs_pb
from skyagent.schedule.v1 import schedule_service_pb2 as pb
from tests.control.meshed import CallingAs
from tests.control.scheduler.world import Timetable, at, refused, schedule, self_test, stub_of

MINUTE = Duration(seconds=60)
ABSENT = "01M8H8G20M69E2EH0GS56AFR8Z"
REQUEST = "0b1f0a3e-5d5e-4d7c-8a57-3a6f6a0b8f10"


async def runs_of(timetable: Timetable, mission_id: str) -> int:
    return len((await timetable.client.runs.ListRuns(runs_pb.ListRunsRequest(mission_id=mission_id))).runs)


async def test_a_run_starts_when_it_is_due_in_the_name_of_whoever_made_the_schedule(timetable: Timetable) -> None:
    made = await timetable.create()
    await timetable.pass_by(59.9)
    assert await timetable.states(made.schedule_id) == []
    await timetable.pass_by(0.2)
    (firing,) = await timetable.firings(made.schedule_id)
    assert (firing.state, firing.cause) == (pb.FIRING_STATE_STARTED, pb.FIRING_CAUSE_TIME)
    run = (await timetable.client.runs.GetRun(runs_pb.GetRunRequest(run_id=firing.run_id))).run
    assert (run.mission_id, run.actor) == (made.mission_id, "admin-of-default")
    now = await timetable.get(made.schedule_id)
    assert (now.last_run_id, now.counts.started) == (firing.run_id, 1)
    assert now.next_time.ToMilliseconds() == made.next_time.ToMilliseconds() + 60_000


async def test_what_comes_of_due_times_is_counted(timetable: Timetable) -> None:
    made = await timetable.create(every=MINUTE)
    await timetable.pass_by(60)
    await timetable.pass_by(60)
    assert await timetable.states(made.schedule_id) == ["STARTED", "SKIPPED"]
    counted = (await timetable.world.runtime.metrics.text("default")).decode()
    assert 'skyagent_schedule_firings_total{outcome="started"} 1.0' in counted
    assert 'skyagent_schedule_firings_total{outcome="skipped"} 1.0' in counted


async def test_what_is_once_starts_once(timetable: Timetable) -> None:
    made = await timetable.create(at=at(timetable.clock.now_ms() + 5_000))
    await timetable.pass_by(5)
    await timetable.pass_by(3_600)
    assert await timetable.states(made.schedule_id) == ["STARTED"]
    assert not (await timetable.get(made.schedule_id)).HasField("next_time")


async def test_the_same_request_makes_one_schedule_and_one_mission(timetable: Timetable) -> None:
    first, second = await timetable.create(REQUEST), await timetable.create(REQUEST)
    assert first == second
    assert len((await timetable.client.missions.ListMissions(missions_pb.ListMissionsRequest())).missions) == 1
    with refused(AlreadyExists):
        await timetable.create(REQUEST, every=Duration(seconds=61))


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"cron": "61 * * * *"}, "schedule.cron"),
        ({"cron": "0 0 31 2 *"}, "schedule.cron"),
        ({"cron": "0 0 * * *", "time_zone": "Mars/Olympus"}, "schedule.time_zone"),
        ({"every": Duration()}, "schedule.every"),
        ({"at": at(1_000)}, "schedule.at"),
        ({"after_mission_id": "nonsense"}, "schedule.after_mission_id"),
        ({"after": pb.After(mission_ids=[ABSENT])}, "schedule.after.mission_ids[0]"),
        ({"every": MINUTE, "jitter": MINUTE}, "schedule.jitter"),
        ({"cron": "0 * * * *", "jitter": Duration(seconds=3_600)}, "schedule.jitter"),
        ({"every": MINUTE, "spec": mission_pb2.MissionSpec(goal="?", template="none")}, "schedule.spec.template"),
        (
            {"every": MINUTE, "spec": mission_pb2.MissionSpec(goal="?", template="login_flow")},
            "schedule.spec.inputs.site",
        ),
    ],
)
async def test_what_can_never_run_is_refused_by_its_field_and_leaves_nothing(
    timetable: Timetable, given: dict[str, object], field: str
) -> None:
    with refused(InvalidArgument) as why:
        await timetable.create("", **given)
    assert isinstance(why.error, InvalidArgument)
    assert why.error.violations[0].field == field
    assert not (await timetable.stub.ListSchedules(pb.ListSchedulesRequest())).schedules


async def test_a_paused_schedule_starts_nothing_and_goes_on_from_when_it_is_resumed(timetable: Timetable) -> None:
    made = await timetable.create()
    await timetable.stub.PauseSchedule(pb.PauseScheduleRequest(schedule_id=made.schedule_id))
    await timetable.pass_by(600)
    assert await timetable.states(made.schedule_id) == []
    resumed = await timetable.stub.ResumeSchedule(pb.ResumeScheduleRequest(schedule_id=made.schedule_id))
    assert resumed.schedule.next_time.ToMilliseconds() > timetable.clock.now_ms()
    await timetable.pass_by(60)
    assert await timetable.states(made.schedule_id) == ["STARTED"]


async def test_a_run_that_is_under_way_is_waited_for_and_its_end_starts_the_next(timetable: Timetable) -> None:
    made = await timetable.create(every=MINUTE, overlap=pb.OVERLAP_POLICY_QUEUE)
    await timetable.pass_by(60)
    await timetable.pass_by(60)
    first, second = await timetable.firings(made.schedule_id)
    assert (second.state, second.reason) == (pb.FIRING_STATE_WAITING, f"waits for the end of run {first.run_id}")
    await timetable.end(first.run_id)
    assert await timetable.states(made.schedule_id) == ["STARTED", "STARTED"]


async def test_the_run_before_is_cancelled_where_that_is_wanted(timetable: Timetable) -> None:
    made = await timetable.create(every=MINUTE, overlap=pb.OVERLAP_POLICY_CANCEL_PREVIOUS)
    await timetable.pass_by(60)
    (first,) = await timetable.firings(made.schedule_id)
    await timetable.pass_by(60)
    owned = await timetable.world.owned(first.run_id)
    (command,) = await owned.journal.pending_commands(first.run_id)
    assert command.kind == "CANCEL"
    await timetable.world.finish(owned)
    await timetable.pass_by(0.001)
    assert await timetable.states(made.schedule_id) == ["STARTED", "STARTED"]


async def test_a_trigger_starts_a_run_beside_the_times_once_a_request(timetable: Timetable) -> None:
    made = await timetable.create(every=MINUTE, paused=True)
    request = pb.TriggerScheduleRequest(schedule_id=made.schedule_id, request_id=REQUEST)
    first, second = await timetable.stub.TriggerSchedule(request), await timetable.stub.TriggerSchedule(request)
    assert first.run_id == second.run_id
    other = await timetable.stub.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.schedule_id))
    assert other.run_id != first.run_id
    assert await runs_of(timetable, made.mission_id) == 2


async def test_a_range_of_the_past_is_shown_first_and_then_started_one_after_the_other(timetable: Timetable) -> None:
    made = await timetable.create(cron="* * * * *")
    now_ms = timetable.clock.now_ms()
    asked = pb.BackfillScheduleRequest(
        schedule_id=made.schedule_id, start_time=at(now_ms - 180_000), end_time=at(now_ms), dry_run=True
    )
    shown = await timetable.stub.BackfillSchedule(asked)
    assert (len(shown.firings), shown.waiting) == (3, 3)
    assert await timetable.states(made.schedule_id) == []
    asked.dry_run = False
    assert (await timetable.stub.BackfillSchedule(asked)).waiting == 3
    await timetable.stub.PauseSchedule(pb.PauseScheduleRequest(schedule_id=made.schedule_id))
    await timetable.stub.ResumeSchedule(pb.ResumeScheduleRequest(schedule_id=made.schedule_id))
    for ended in range(3):
        await timetable.pass_by(0.001)
        states = await timetable.states(made.schedule_id)
        assert states == ["STARTED"] * (ended + 1) + ["WAITING"] * (2 - ended)
        await timetable.end((await timetable.firings(made.schedule_id))[ended].run_id)
    again = await timetable.stub.BackfillSchedule(asked)
    assert (again.waiting, [firing.state for firing in again.firings]) == (0, [pb.FIRING_STATE_STARTED] * 3)


async def test_a_range_that_is_too_long_or_lies_ahead_is_refused(timetable: Timetable) -> None:
    made = await timetable.create(cron="* * * * *")
    now_ms = timetable.clock.now_ms()
    for start_ms, end_ms in ((now_ms - 10**9, now_ms), (now_ms, now_ms + 60_000), (now_ms, now_ms - 1)):
        with refused(InvalidArgument) as why:
            await timetable.stub.BackfillSchedule(
                pb.BackfillScheduleRequest(schedule_id=made.schedule_id, start_time=at(start_ms), end_time=at(end_ms))
            )
        assert "end_time" in str(why)


async def test_a_mission_starts_when_another_has_succeeded_and_a_third_after_both(timetable: Timetable) -> None:
    first = await timetable.create(at=at(timetable.clock.now_ms() + 1_000))
    second = await timetable.create(after_mission_id=first.mission_id)
    third = await timetable.create(after=pb.After(mission_ids=[first.mission_id, second.mission_id]))
    await timetable.pass_by(1)
    await timetable.end((await timetable.get(first.schedule_id)).last_run_id)
    (started,) = await timetable.firings(second.schedule_id)
    assert started.cause == pb.FIRING_CAUSE_SUCCESS
    assert await timetable.states(third.schedule_id) == []
    await timetable.end(started.run_id)
    assert await timetable.states(third.schedule_id) == ["STARTED"]


async def test_schedules_that_would_wait_for_each_other_in_a_circle_are_refused(timetable: Timetable) -> None:
    first = await timetable.create()
    second = await timetable.create(after_mission_id=first.mission_id)
    third = await timetable.create(after=pb.After(mission_ids=[second.mission_id]))
    for mission_id in (third.mission_id, first.mission_id):
        with refused(InvalidArgument) as why:
            await timetable.stub.UpdateSchedule(
                pb.UpdateScheduleRequest(
                    schedule_id=first.schedule_id, schedule=schedule(after=pb.After(mission_ids=[mission_id]))
                )
            )
        assert first.schedule_id in str(why)
    assert (await timetable.get(first.schedule_id)).every == MINUTE


async def test_another_spec_makes_another_mission_and_those_that_wait_follow(timetable: Timetable) -> None:
    first = await timetable.create()
    second = await timetable.create(after_mission_id=first.mission_id)
    changed = schedule(every=MINUTE)
    changed.spec.goal = "something else"
    request = pb.UpdateScheduleRequest(schedule_id=first.schedule_id, schedule=changed)
    become = (await timetable.stub.UpdateSchedule(request)).schedule
    assert become.mission_id != first.mission_id
    assert become.next_time == first.next_time  # its times are as they were
    assert (await timetable.get(second.schedule_id)).after_mission_id == become.mission_id


async def test_other_times_count_from_the_change_on(timetable: Timetable) -> None:
    made = await timetable.create()
    await timetable.pass_by(30)
    request = pb.UpdateScheduleRequest(schedule_id=made.schedule_id, schedule=schedule(every=Duration(seconds=40)))
    become = (await timetable.stub.UpdateSchedule(request)).schedule
    assert become.next_time.ToMilliseconds() == timetable.clock.now_ms() + 40_000


async def test_what_is_refused_later_says_why_and_rests_longer_each_time(timetable: Timetable) -> None:
    made = await timetable.create(every=Duration(seconds=50))
    await timetable.client.missions.DeleteMission(missions_pb.DeleteMissionRequest(mission_id=made.mission_id))
    await timetable.pass_by(50)
    now = await timetable.get(made.schedule_id)
    assert "MISSION_NOT_FOUND" in now.refusal
    assert now.retry_time.ToMilliseconds() == timetable.clock.now_ms() + 60_000
    await timetable.pass_by(50)
    await timetable.pass_by(50)
    assert await timetable.states(made.schedule_id) == ["REFUSED", "SKIPPED", "REFUSED"]
    now = await timetable.get(made.schedule_id)
    assert now.retry_time.ToMilliseconds() == timetable.clock.now_ms() + 120_000
    with refused(NotFound):
        await timetable.stub.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.schedule_id))


async def test_a_deleted_schedule_starts_nothing_and_is_gone(timetable: Timetable) -> None:
    made = await timetable.create()
    await timetable.stub.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=made.schedule_id))
    await timetable.pass_by(120)
    assert await runs_of(timetable, made.mission_id) == 0
    with refused(NotFound):
        await timetable.get(made.schedule_id)


async def test_another_tenants_schedule_looks_as_if_it_were_not_there(
    timetable: Timetable, stranger: Timetable
) -> None:
    made = await timetable.create()
    now_ms = timetable.clock.now_ms()
    its = made.schedule_id
    ranged = pb.BackfillScheduleRequest(schedule_id=its, start_time=at(now_ms - 1), end_time=at(now_ms))
    for call in (
        stranger.stub.GetSchedule(pb.GetScheduleRequest(schedule_id=its)),
        stranger.stub.UpdateSchedule(pb.UpdateScheduleRequest(schedule_id=its, schedule=schedule())),
        stranger.stub.DeleteSchedule(pb.DeleteScheduleRequest(schedule_id=its)),
        stranger.stub.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=its)),
        stranger.stub.PauseSchedule(pb.PauseScheduleRequest(schedule_id=its)),
        stranger.stub.ResumeSchedule(pb.ResumeScheduleRequest(schedule_id=its)),
        stranger.stub.BackfillSchedule(ranged),
        stranger.stub.ListFirings(pb.ListFiringsRequest(schedule_id=its)),
        stranger.stub.ListDueTimes(pb.ListDueTimesRequest(schedule_id=its)),
    ):
        with refused(NotFound):
            await call
    with refused(InvalidArgument):
        await stranger.create(after_mission_id=made.mission_id)
    assert not (await stranger.stub.ListSchedules(pb.ListSchedulesRequest())).schedules


async def test_schedules_are_listed_by_what_is_due_next_page_by_page(timetable: Timetable) -> None:
    made = [await timetable.create(every=Duration(seconds=seconds)) for seconds in (300, 100, 200)]
    paused = await timetable.create(every=MINUTE, paused=True)
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListSchedulesRequest(page_size=1, page_token=token)
        page = await timetable.stub.ListSchedules(request)
        seen += [one.schedule_id for one in page.schedules]
        token = page.next_page_token
        if not token:
            break
    assert seen == [made[1].schedule_id, made[2].schedule_id, made[0].schedule_id, paused.schedule_id]
    with refused(InvalidArgument):
        await timetable.stub.ListSchedules(pb.ListSchedulesRequest(page_token="nonsense"))


async def test_firings_are_paged_and_chosen_by_state(timetable: Timetable) -> None:
    made = await timetable.create()
    for _ in range(3):
        await timetable.pass_by(60)
    first = await timetable.stub.ListFirings(pb.ListFiringsRequest(schedule_id=made.schedule_id, page_size=2))
    rest = pb.ListFiringsRequest(schedule_id=made.schedule_id, page_size=2, page_token=first.next_page_token)
    assert len(first.firings) + len((await timetable.stub.ListFirings(rest)).firings) == 3
    skipped = pb.ListFiringsRequest(schedule_id=made.schedule_id, states=[pb.FIRING_STATE_SKIPPED])
    assert len((await timetable.stub.ListFirings(skipped)).firings) == 2


async def test_the_times_to_come_are_shown_with_their_delay(timetable: Timetable) -> None:
    made = await timetable.create(cron="30 6 * * *", time_zone="Europe/Berlin", jitter=Duration(seconds=600))
    shown = await timetable.stub.ListDueTimes(pb.ListDueTimesRequest(schedule_id=made.schedule_id, count=3))
    assert (len(shown.due_times), shown.time_zone) == (3, "Europe/Berlin")
    assert shown.due_times[0].due_time == made.next_time
    for time in shown.due_times:
        assert 0 <= time.start_time.ToMilliseconds() - time.due_time.ToMilliseconds() <= 600_000


async def test_nobody_but_a_service_acts_in_anothers_name(timetable: Timetable) -> None:
    with refused(Denied):
        await timetable.client.missions.CreateMission(
            missions_pb.CreateMissionRequest(spec=self_test(), actor="somebody else")
        )
    mission_id = await timetable.mission()
    with refused(Denied):
        await timetable.client.runs.StartRun(runs_pb.StartRunRequest(mission_id=mission_id, actor="somebody else"))


async def test_a_wall_clock_that_is_set_starts_nothing_twice(timetable: Timetable) -> None:
    made = await timetable.create()
    await timetable.pass_by(60)
    timetable.clock.jump(-3_600)
    await timetable.pass_by(600)
    assert await timetable.states(made.schedule_id) == ["STARTED"]
    timetable.clock.jump(3_600 + 90)
    await timetable.pass_by(10)
    assert await timetable.states(made.schedule_id) == ["STARTED", "SKIPPED", "SKIPPED"]
    assert await runs_of(timetable, made.mission_id) == 1


async def test_who_says_what_a_schedule_does_does_it_in_their_own_name(
    timetable: Timetable, calling_as: CallingAs
) -> None:
    made = await timetable.create()
    other = stub_of(calling_as(timetable.world.runtime, tenant="default", role=Role.OPERATOR))
    another = schedule()
    another.spec.goal = "what somebody else wants"
    await other.UpdateSchedule(pb.UpdateScheduleRequest(schedule_id=made.schedule_id, schedule=another))
    started = await other.TriggerSchedule(pb.TriggerScheduleRequest(schedule_id=made.schedule_id))
    run = (await timetable.client.runs.GetRun(runs_pb.GetRunRequest(run_id=started.run_id))).run
    assert (run.spec.goal, run.actor) == (another.spec.goal, "operator-of-default")


@pytest.mark.parametrize("token", ["9999999999999999999|x", "x|y", "5"])
async def test_a_page_token_of_nobody_is_refused_by_its_field(timetable: Timetable, token: str) -> None:
    with refused(InvalidArgument) as why:
        await timetable.stub.ListSchedules(pb.ListSchedulesRequest(page_token=token))
    assert "page_token" in str(why.error)


async def test_a_range_before_1970_is_refused_by_its_field(timetable: Timetable) -> None:
    made = await timetable.create(cron="0 0 * * *", time_zone="America/New_York")
    asked = pb.BackfillScheduleRequest(schedule_id=made.schedule_id, dry_run=True)
    asked.start_time.FromSeconds(-62_135_596_800)
    asked.end_time.FromSeconds(-62_135_596_000)
    with refused(InvalidArgument) as why:
        await timetable.stub.BackfillSchedule(asked)
    assert "start_time" in str(why.error)
