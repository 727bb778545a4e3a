"""What stands on the screen is what happened."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evals.end_to_end.kills import Kill, Strike
from evals.end_to_end.mesh import Part, Progress, Question, Record, Stage
from evals.end_to_end.scene import Scene, scene_for
from evals.end_to_end.screen import Frame, PlainScreen, showing
from evals.records import Invoice
from evals.sites.fault_proxy import Phase, Save
from infra.clock import ManualClock

QUESTION = Question("01A", "b3:0", "Save invoice over 12,000.00 EUR", ("above 10,000.00",))


@pytest.fixture
def scene(invoices: tuple[Invoice, ...]) -> Scene:
    return scene_for(invoices, "Django's admin", began=0.0)


def drawn(scene: Scene, width: int = 140, height: int = 45) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    with console.capture() as captured:
        console.print(Frame(scene, ManualClock()))
    return captured.get()


def test_every_record_stands_in_the_frame_with_its_stage(scene: Scene) -> None:
    numbers = list(scene.rows)
    scene.hear(Progress("RUNNING", {numbers[0]: Record(Stage.DONE), numbers[1]: Record(Stage.CHECKING)}, events=7))
    text = drawn(scene)
    assert all(number in text for number in numbers)
    assert "1 of 12 records verified" in text
    assert "✓ verified" in text
    assert "· checking" in text
    assert "7 events" in text


def test_a_record_that_nobody_asked_for_does_not_break_the_frame(scene: Scene) -> None:
    scene.hear(Progress("RUNNING", {"INV-X": Record(Stage.DONE)}))
    assert "INV-X" not in drawn(scene)


def test_a_question_is_shown_until_it_is_answered(scene: Scene) -> None:
    number = next(iter(scene.rows))
    scene.asked(QUESTION, number)
    assert "A person must answer" in drawn(scene)
    scene.answered(number, granted=True, by="you")
    assert "A person must answer" not in drawn(scene)
    assert "approved by you" in drawn(scene)


def test_a_killed_part_is_marked_until_it_runs_again(scene: Scene) -> None:
    number = next(iter(scene.rows))
    kill = Kill(Strike(Part.ENVOY, number, Phase.AFTER_FORWARD), pid=111, at_s=1.0)
    scene.see({Part.ENVOY: 111})
    scene.announce(kill)
    scene.see({Part.ENVOY: 111})
    assert "†111" in drawn(scene)
    kill.back_pid, kill.back_s = 222, 1.5
    scene.recovered(kill)
    assert "†" not in drawn(scene)
    assert "222" in drawn(scene)


def test_the_frame_fits_a_terminal_of_a_hundred_columns(scene: Scene) -> None:
    number = next(iter(scene.rows))
    scene.asked(QUESTION, number)
    scene.lied(Save(1, "/", {"number": number}))
    lines = drawn(scene, width=100).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert number in "\n".join(lines)


@pytest.mark.parametrize("now", Stage)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 45)])
def test_the_keys_of_a_long_question_are_on_the_screen_and_the_frame_fits_it(
    scene: Scene, width: int, height: int, now: Stage
) -> None:
    numbers = list(scene.rows)
    scene.page = "http://127.0.0.1:43210/"
    scene.see(dict.fromkeys(Part, 4194304))
    scene.hear(Progress("RUNNING", dict.fromkeys(numbers, Record(now, "a detail that goes on " * 9)), events=1234))
    scene.lied(Save(1, "/", {"number": numbers[1]}))
    scene.announce(Kill(Strike(Part.WORKER, numbers[1], Phase.AFTER_FORWARD), pid=4194304, at_s=1.0))
    scene.asked(Question("01A", "b3:0", "Save an invoice that is long to tell of " * 8, ("above 10,000.00",) * 3), "")
    lines = drawn(scene, width, height).splitlines()
    assert "y = yes   N = no" in lines[0]
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_a_question_longer_than_the_terminal_still_names_its_keys(scene: Scene) -> None:
    scene.asked(Question("01A", "b3:0", "Save it", ("a reason",) * 40), "")
    assert "y = yes   N = no" in "\n".join(drawn(scene, 80, 24).splitlines()[:24])


def test_a_low_terminal_shows_the_records_that_are_not_verified_and_counts_the_others(scene: Scene) -> None:
    *verified, open_one = scene.rows
    scene.hear(Progress("RUNNING", dict.fromkeys(verified, Record(Stage.DONE))))
    text = drawn(scene, 80, 10)
    assert open_one in text
    assert verified[0] not in text
    assert "11 verified" in text


def test_a_terminal_too_low_for_the_open_records_says_how_many_are_left_out(scene: Scene) -> None:
    text = drawn(scene, 120, 8)
    shown = sum(number in text for number in scene.rows)
    assert shown
    assert f"0 verified, {12 - shown} more" in text
    assert len(text.splitlines()) <= 8


async def test_without_a_terminal_each_change_is_one_line_and_nothing_is_said_twice(scene: Scene) -> None:
    number = next(iter(scene.rows))
    output = io.StringIO()
    console = Console(file=output, width=160)
    async with showing(scene, console, ManualClock()) as screen:
        assert isinstance(screen, PlainScreen)
        kill = Kill(Strike(Part.WORKER, number, Phase.BEFORE_FORWARD), pid=111, at_s=1.0)
        scene.announce(kill)
        screen.refresh()
        scene.hear(Progress("RUNNING", {number: Record(Stage.ENTERING)}))
        screen.refresh()
        screen.refresh()
        scene.asked(QUESTION, number)
    lines = [line.partition(" s  ")[2] for line in output.getvalue().splitlines()]
    moment = f"while {number} is being saved, before the application has it"
    assert lines == [
        f"kill -9 111 → browser worker, {moment}",
        f"{number}  entering",
        f"a person is asked about {number}: {QUESTION.summary}",
    ]
