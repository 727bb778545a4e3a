"""What was said and heard, in order: the evidence of every check."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson

from gateway.conformance.verdicts import Line
from infra.clock import Clock
from skyagent.execution.v1 import worker_service_pb2 as pb

_ROUTINE = ("heartbeat", "renewed", "inventory")
LONGEST_TEXT = 400
MOST_LINES = 60
"""Of one check; what is between its first and its last ones is counted."""


class Transcript:
    """Lines since the start of a trial."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self._lines: list[Line] = []
        self._routine: set[int] = set()

    def __len__(self) -> int:
        return len(self._lines)

    def note(self, text: str) -> None:
        """Something happened."""
        self._lines.append(Line(round(self._clock.monotonic() - self._start, 3), text))

    def frame(self, stream: int, arrow: str, frame: pb.ControlRequest | pb.ControlResponse) -> None:
        """A frame of a stream, without those that came together with it: `→` went to the worker, `←` came from it."""
        alone = type(frame).FromString(frame.SerializeToString())
        alone.ClearField("more")
        body = MessageToJson(alone, indent=None)
        if frame.WhichOneof("frame") in _ROUTINE:
            self._routine.add(len(self._lines))
        self.note(f"#{stream} {arrow} {body[:LONGEST_TEXT]}{'…' if len(body) > LONGEST_TEXT else ''}")

    def since(self, mark: int) -> list[Line]:
        """The lines from the `mark`th on. Of many, what comes by itself and then the middle is left out."""
        lines = self._lines[mark:]
        if len(lines) > MOST_LINES:
            lines = [line for place, line in enumerate(lines, mark) if place not in self._routine]
        if len(lines) <= MOST_LINES:
            return lines
        half = MOST_LINES // 2
        left_out = Line(lines[half].at, f"… {len(lines) - 2 * half} lines …")
        return [*lines[:half], left_out, *lines[-half:]]
