import json
import logging
from collections.abc import Generator

import pytest

from infra.errors import NotFound
from infra.log import configure_logging, event_logger
from infra.settings import LogSettings


@pytest.fixture(autouse=True)
def _as_before() -> Generator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_carries_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(json_lines=True))
    event_logger("control.x").info("run.claimed", run_id="r1", epoch=3)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "logger": "control.x", "event": "run.claimed", "run_id": "r1", "epoch": 3}


def test_a_readable_line_quotes_what_holds_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings())
    event_logger("x").warning("policy.denied", rule="no-payment", note="asks a person")
    assert capsys.readouterr().err.endswith('WARNING policy.denied rule=no-payment note="asks a person"\n')


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="warning"))
    event_logger("x").info("step.done")
    assert not capsys.readouterr().err


def test_an_unexpected_error_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(json_lines=True))
    try:
        int("no number")
    except ValueError as error:
        event_logger("x").error("loop.failed", error=error)
    assert "ValueError" in json.loads(capsys.readouterr().err)["traceback"]


def test_an_error_of_ours_is_logged_by_its_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(json_lines=True))
    event_logger("x").error("rpc.failed", error=NotFound("RUN_NOT_FOUND", "run 'r' does not exist"))
    line = json.loads(capsys.readouterr().err)
    assert line["error"] == "run 'r' does not exist [RUN_NOT_FOUND]"
    assert "traceback" not in line
