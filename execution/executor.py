"""What a kind of worker supplies: how its actions are carried out.

The generic worker (worker.py) owns the stream, the journal and the leases; an executor owns the world that its actions
touch. They meet here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1.action_pb2 import Action, Outcome, SessionState
from skyagent.execution.v1.worker_service_pb2 import Inventory


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at a step, already journalled as begun."""

    run_id: str
    step_id: str
    attempt: int
    action: Action
    tenant: str = ""
    #: Hosts that the mission may reach; "*.example.com" matches names below example.com. Empty allows none.
    allowed_hosts: tuple[str, ...] = ()
    #: Seconds on the monotonic clock after which nothing may begin; None means no deadline.
    deadline: float | None = None
    #: What sessions of the run start from where this worker has none of them.
    sessions: tuple[SessionState, ...] = ()


class BlobSink(Protocol):
    """Where evidence goes and where files that an action names come from."""

    async def put(self, data: bytes, media_type: str, role: str) -> BlobRef:
        """Stores bytes; they are durable before this returns."""
        ...

    async def get(self, digest: str) -> bytes:
        """Reads stored bytes; raises infra.errors.NotFound for an unknown digest."""
        ...


class Executor(Protocol):
    """Carries out the actions of one kind of worker. An async context manager: it is open between enter and exit."""

    @property
    def kind(self) -> str:
        """The kind of worker: "browser", "desktop", "workspace", "tool" or "noop"."""
        ...

    def actions(self) -> Sequence[str]:
        """Actions it can do with their version, for instance "browser.click/1"."""
        ...

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        """Carries out one action and says what came of it, with its blobs already stored.

        Expected failures are outcomes, not exceptions. Cancelling the task ends it soon: it then returns an outcome
        with status CANCELLED and the effect that is known, because only the executor knows whether it had begun to act.
        """
        ...

    def inventory(self) -> Inventory:
        """What is alive on the worker now."""
        ...

    async def end_run(self, run_id: str) -> None:
        """Forgets a run: closes its sessions and removes what was kept for it. Unknown runs are ignored."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
