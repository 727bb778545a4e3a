"""A real mesh with a real mission for the pages to show: four invoices, one save that lies, one that needs a yes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientSession

from evals import records
from evals.end_to_end.mesh import Order, Part
from evals.end_to_end.skyagent_mesh import SkyagentMesh, skyagent_mesh
from evals.sites import ledger
from evals.sites.fault_proxy import Faults, Save, fault_proxy
from infra.clock import SystemClock
from infra.ids import system_ids

CLOCK = SystemClock()
IDS = system_ids(CLOCK)
ACCOUNT = ledger.Account("clerk", "a password of the test", "k" * 50)
RECORDS = 4
LYING_SAVE = 2
HOSTILE_GOAL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@dataclass(frozen=True, slots=True)
class Shown:
    """A mesh, and the run that its pages are tried on."""

    mesh: SkyagentMesh
    address: str
    token: str
    run_id: str

    def page(self, path: str = "") -> str:
        """An address that lets its reader in."""
        return f"{self.address}{path}#token={self.token}"

    @property
    def run_page(self) -> str:
        return self.page(f"/runs/{self.run_id}")

    async def approve(self) -> None:
        """Says yes to whatever is asked."""
        async with self._session() as session:
            async with session.get("/v1/approvals") as answer:
                asked = (await answer.json())["approvals"]
            for each in asked:
                path = f"/v1/approvals/{each['record']['approvalId']}:decide"
                body = {"decision": "APPROVAL_STATE_GRANTED", "actionDigest": each["record"]["actionDigest"]}
                async with session.post(path, json=body) as answer:
                    assert answer.status == 200, await answer.text()

    async def ask_for(self, goal: str) -> str:
        """Starts a mission that needs nothing; returns its run."""
        body = {"spec": {"goal": goal, "template": "self_test", "dryRun": True}}
        async with self._session() as session, session.post("/v1/missions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["runId"])

    async def gateway_pid(self) -> int:
        return (await self.mesh.pids())[Part.ENVOY]

    def _session(self) -> ClientSession:
        return ClientSession(self.address, headers={"Authorization": f"Bearer {self.token}"})


@asynccontextmanager
async def mission_under_way(folder: Path) -> AsyncGenerator[Shown]:
    """Starts everything, and ends it with the block."""
    lied: list[int] = []
    async with (
        ledger.running(_made(folder / "site"), ACCOUNT) as site,
        ledger.decoy(site, _made(folder / "decoy")) as decoy,
    ):

        async def divert(save: Save) -> str | None:
            if save.ordinal != LYING_SAVE or lied:
                return None
            lied.append(save.ordinal)
            return await decoy.caught_up()

        async with (
            fault_proxy(site.url, ledger.SAVES, CLOCK, Faults(divert=divert)) as proxy,
            skyagent_mesh(folder / "mesh", ACCOUNT, CLOCK, IDS) as mesh,
        ):
            run_id = await mesh.start(_order(folder / "rows.csv", proxy.url))
            address = mesh.page(run_id).partition("/runs/")[0]
            yield Shown(mesh, address, (folder / "mesh" / "token").read_text().strip(), run_id)


def _order(table: Path, site: str) -> Order:
    # The one above the limit last, so that the lie is about another and one question is asked.
    records.write_csv(table, sorted(records.make(IDS, RECORDS), key=lambda invoice: invoice.amount))
    return Order(
        rows=table,
        site=site,
        form_path=ledger.FORM_PATH,
        list_path=f"{ledger.LIST_PATH}?q={{key}}",
        username=ACCOUNT.username,
        approve_above=str(records.LIMIT),
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
