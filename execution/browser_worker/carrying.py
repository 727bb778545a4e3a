"""Sessions that go along to other runs and other workers: cookies and storage as a sealed blob."""

from __future__ import annotations

import json
from collections.abc import Sequence

from playwright.async_api import StorageState

from execution.browser_worker.store import SavedSession
from execution.executor import BlobSink
from execution.sealing import Seal
from infra.errors import Precondition
from skyagent.execution.v1.action_pb2 import SessionState

ROLE = "session"


async def told(session_id: str, storage: StorageState, seal: Seal, blobs: BlobSink) -> SessionState:
    """The state of a session as its outcome names it; stored when this returns."""
    sealed = seal.close(json.dumps(storage).encode())
    return SessionState(session_id=session_id, state=await blobs.put(sealed, "application/octet-stream", ROLE))


async def start_of(
    session_id: str, sessions: Sequence[SessionState], seal: Seal | None, blobs: BlobSink
) -> SavedSession | None:
    """What a session begins with that this worker never had; nothing when nobody has told of one.

    Raises:
        NotFound: the state is not stored any more.
        Precondition: SESSION_NOT_RESTORED, it cannot be read here.
    """
    told_last = next((session for session in sessions if session.session_id == session_id), None)
    if told_last is None:
        return None
    if seal is None:
        raise Precondition("SESSION_NOT_RESTORED", "this worker has no key for the sessions of others")
    return SavedSession(json.loads(seal.open(await blobs.get(told_last.state.digest))))
