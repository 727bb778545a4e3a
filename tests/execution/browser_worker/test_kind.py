"""The browser kind as a worker opens it: from settings and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from execution.browser_worker import executor
from infra.clock import SystemClock
from infra.settings import EgressSettings, Settings
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_OK, Action
from skyagent.execution.v1.worker_service_pb2 import Capabilities
from tests.execution.actors import settings as worker_settings
from tests.execution.actors import working
from tests.execution.browser_worker.hands import READ, Hands, host_of, status
from tests.execution.browser_worker.site import serving
from tests.execution.control_plane import assign, control_plane, step_key


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def test_what_it_can_do_are_actions_of_the_contract(tmp_path: Path) -> None:
    browser = executor(Settings(data_dir=tmp_path), tmp_path, clock=SystemClock())
    assert Capabilities(kind=browser.kind, actions=browser.actions()).actions[0] == "browser.navigate/1"
    assert len(set(browser.actions())) == 22


async def test_settings_name_hosts_for_every_mission_and_the_environment_names_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYAGENT_SECRET_WORD", "open sesame")
    async with serving() as site:
        settings = Settings(data_dir=tmp_path, egress=EgressSettings(allow=(host_of(site.url),)))
        async with executor(settings, tmp_path / "worker", clock=SystemClock()) as browser:
            hands = Hands(browser, site.url, hosts=())
            await hands.go("/echo")
            filled = await hands.fill_form({"word": "{{secret:word}}"})
            environment = environment_of(browser.inventory().processes[0].pid)
    assert (status(filled), filled.browser.fields[0].matches) == ("OK", True)
    assert b"open sesame" not in environment
    assert b"SKYAGENT_MARKER" in environment


async def test_a_real_worker_brings_an_assignment_to_the_page_and_the_evidence_back(tmp_path: Path) -> None:
    browser = executor(Settings(data_dir=tmp_path), tmp_path / "worker", clock=SystemClock())
    async with serving() as site, control_plane() as plane, working(browser, worker_settings(plane.address, tmp_path)):
        link = await plane.meet()
        await link.next("credit")
        navigate = pb.BrowserAction(session_id="main", navigate=pb.NavigateAction(url=f"{site.url}/form"))
        asked = assign(step_key(), Action(effect_class=READ, browser=navigate))
        asked.allowed_hosts.append(host_of(site.url))
        link.assign(asked)
        outcome = (await link.result()).outcome
    assert (outcome.status, outcome.browser.observation.title) == (OUTCOME_STATUS_OK, "Invoice")
    assert [each.role for each in outcome.blobs] == ["screenshot", "observation", "http"]
    assert {each.digest for each in outcome.blobs} <= plane.blobs.keys()
