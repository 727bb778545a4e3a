"""Makes the golden journals: `python -m tests.fold.record`. Both folds must give the digests beside them for ever.

Those of version 1 stand in tests/golden itself. A change of the fold that changes a digest raises FOLD_VERSION and
makes journals of its own, in a folder of its version; the older ones stay as they are.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from control.core.run import FOLD_VERSION, RunFold, fold, terminal
from control.core.summary import state_digest
from control.journal import ApprovalDecision, ApprovalStatus, Command, EventDraft, NewRun
from evals import records
from evals.sites.fault_proxy import Faults, Save, fault_proxy
from evals.sites.ledger.process import FORM_PATH, LIST_PATH, SAVES, Account, decoy, running
from execution.browser_worker import MappingSecrets, Secret, executor
from infra.blobs import shared_blobs
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1.state_pb2 import NodeRecord
from tests.control.core.simulation import Application, Simulation, records_plan
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, settings_in, worker
from tests.fold import journals, mixed

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ACCOUNT = Account("clerk", "a password of the test", "k" * 50)
RECORDS = 4


def main() -> None:
    made = {
        "simulated": simulated(),
        "mixed": list(mixed.journal(seed=1, length=400)),
        "data_entry": asyncio.run(data_entry()),
    }
    folder = GOLDEN / f"v{FOLD_VERSION}"
    folder.mkdir()
    for name, events in made.items():
        journals.write(folder / f"{name}.journal", events)
    digests = {name: state_digest(fold(events)) for name, events in made.items()}
    (folder / "digests.json").write_text(
        json.dumps({"fold_version": FOLD_VERSION, "digests": digests}, indent=2) + "\n"
    )


def simulated() -> list[ev.RunEvent]:
    """Records that are lost, lied about and asked about, in virtual time."""
    asked = {"save r2"}

    def policy(record: NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title in asked else pol.VERDICT_ALLOW

    application = Application(saves=["saved", "false", "lost before", "lost after"])
    run = Simulation(records_plan("r1", "r2", "r3", "r4"), application, policy)
    run.run()
    while run.folded.state.phase == ev.RUN_PHASE_WAITING:
        run.answer(ev.APPROVAL_STATE_GRANTED)
        run.run()
    return run.journal


async def data_entry() -> list[ev.RunEvent]:
    """A real mission in a real browser: the second save is answered by another instance, one waits for a person."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lied: list[str] = []
        async with running(_made(folder / "site"), ACCOUNT) as site, decoy(site, _made(folder / "decoy")) as other:

            async def divert(save: Save) -> str | None:
                if save.ordinal != 2 or lied:
                    return None
                lied.append(save.path)
                return await other.caught_up()

            async with fault_proxy(site.url, SAVES, CLOCK, Faults(divert=divert)) as proxy:
                return await _mission(folder, proxy.url)


async def _mission(folder: Path, site: str) -> list[ev.RunEvent]:
    settings = settings_in(folder / "data")
    secrets = MappingSecrets({"ledger": Secret(ACCOUNT.password)})
    browser = executor(settings, folder / "worker", clock=CLOCK, secrets=secrets)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, browser, "browser-1"):
        run_id = await _start(plane, folder / "rows.csv", site)
        return await _followed(plane, run_id)


async def _start(plane: ControlPlane, table: Path, site: str) -> str:
    records.write_csv(table, records.make(IDS, RECORDS))
    blobs = await plane.runtime.shared(shared_blobs)
    stored = await blobs.put(await asyncio.to_thread(table.read_bytes))
    spec = mission.MissionSpec(
        goal="Enter these invoices into the ledger",
        template="data_entry",
        files=[BlobRef(digest=stored.digest, size=stored.size, media_type="text/csv", role="rows")],
        allowed_hosts=[urlsplit(site).netloc],
        limits=mission.Limits(approve_above_cents=1_000_000),
    )
    inputs = {"site": site, "form": FORM_PATH, "list": f"{LIST_PATH}?q={{key}}", "submit": "Save"}
    inputs |= {"username": ACCOUNT.username, "password": "{{secret:ledger}}"}
    spec.inputs.extend(mission.Input(name=name, value=value) for name, value in inputs.items())
    created = ev.RunCreated(mission_id=IDS.ulid(), tenant="default", spec=spec, fold_version=FOLD_VERSION, ordinal=1)
    first = EventDraft.of(ev.EventBody(run_created=created))
    run_id = IDS.ulid()
    await plane.journal.create_run(
        NewRun(run_id, created.mission_id, "default", FOLD_VERSION, (first,), append_id=IDS.ulid())
    )
    return run_id


async def _followed(plane: ControlPlane, run_id: str) -> list[ev.RunEvent]:
    run, events = RunFold(), list[ev.RunEvent]()
    async with asyncio.timeout(120):
        async for event in plane.events(run_id):
            run.apply(event)
            events.append(event)
            if event.body.HasField("approval_requested"):
                await _grant(plane, run_id, event.body.approval_requested.approval_id)
            if terminal(run.state.phase):
                break
    return events


async def _grant(plane: ControlPlane, run_id: str, approval_id: str) -> None:
    decision = ApprovalDecision(approval_id, ApprovalStatus.GRANTED, "checked by hand")
    payload = cmd.Command(decide=cmd.DecideCommand(approval_id=approval_id)).SerializeToString()
    await plane.journal.command(Command(IDS.uuid(), run_id, "default", "DECIDE", "ann", payload, decision=decision))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
