"""A worker's executor in the hands of a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, TypedDict, Unpack
from urllib.parse import urlsplit

from playwright.async_api import Page

from execution.browser_worker import BrowserConfig, BrowserExecutor, MappingSecrets, Secret
from execution.executor import Assignment
from execution.sealing import Seal
from infra.clock import SystemClock
from infra.digest import digest_of
from infra.errors import NotFound
from infra.ids import system_ids
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, ActionBatch, Outcome, SessionState
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_IDEMPOTENT, EFFECT_CLASS_ONCE, EFFECT_CLASS_READ, EffectClass

READ: Final = EFFECT_CLASS_READ
IDEMPOTENT: Final = EFFECT_CLASS_IDEMPOTENT
ONCE: Final = EFFECT_CLASS_ONCE
_ROUTINE: Final = {
    "navigate",
    "go_back",
    "reload",
    "observe",
    "extract",
    "screenshot",
    "wait_for",
    "pdf",
    "scroll",
    "hover",
}
_runs = count(1)


class Doing(TypedDict, total=False):
    """What a browser can be told to do, by name."""

    session_id: str
    navigate: pb.NavigateAction
    go_back: pb.GoBackAction
    reload: pb.ReloadAction
    observe: pb.ObserveAction
    click: pb.ClickAction
    type: pb.TypeAction
    fill: pb.FillAction
    fill_form: pb.FillFormAction
    press_key: pb.PressKeyAction
    select: pb.SelectAction
    check: pb.CheckAction
    scroll: pb.ScrollAction
    wait_for: pb.WaitForAction
    extract: pb.ExtractAction
    screenshot: pb.ScreenshotAction
    tabs: pb.TabsAction
    pdf: pb.PdfAction
    drag: pb.DragAction
    upload: pb.UploadAction
    handle_dialog: pb.HandleDialogAction
    download: pb.DownloadAction


class Looking(TypedDict, total=False):
    """How to look."""

    scope: pb.ObserveScope.ValueType
    token_budget: int
    root: pb.Target
    find: str
    form_fields: bool


class Locating(TypedDict, total=False):
    """How an element is described."""

    role: str
    name: str
    field: str
    css: str


class Blobs:
    """A blob store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, data: bytes, media_type: str, role: str) -> BlobRef:
        ref = BlobRef(digest=digest_of(data), size=len(data), media_type=media_type, role=role)
        self.kept[ref.digest] = data
        return ref

    async def get(self, digest: str) -> bytes:
        if digest not in self.kept:
            raise NotFound("BLOB_NOT_FOUND", f"no blob {digest}")
        return self.kept[digest]


@dataclass
class Hands:
    """Does actions in one session of one run, which may reach the host of `url` unless it is given others."""

    executor: BrowserExecutor
    url: str = ""
    run_id: str = field(default_factory=lambda: f"RUN{next(_runs):04}")
    hosts: tuple[str, ...] | None = None
    blobs: Blobs = field(default_factory=Blobs)
    deadline: float | None = None
    sessions: tuple[SessionState, ...] = ()

    def __post_init__(self) -> None:
        if self.hosts is None:
            self.may_reach(self.url)

    def may_reach(self, *urls: str) -> None:
        """The hosts of these addresses, each with its port, and no other."""
        self.hosts = tuple(host_of(url) for url in urls)

    @property
    def page(self) -> Page:
        """The tab that the session shows, for a look that does not pass through our own code."""
        return next(each for each in self.executor._sessions.live() if each.key[0] == self.run_id).tab.page  # pyright: ignore[reportPrivateUsage]

    async def do(self, effect_class: EffectClass.ValueType | None = None, **action: Unpack[Doing]) -> Outcome:
        return await self.execute(self.action(effect_class, **action))

    async def execute(self, action: Action) -> Outcome:
        assignment = Assignment(
            self.run_id, "STEP", 1, action, "acme", self.hosts or (), self.deadline, self.sessions
        )  # fmt: skip
        return await self.executor.execute(assignment, self.blobs, lambda _: None)

    async def batch(self, *actions: Action) -> Outcome:
        highest = max(action.effect_class for action in actions)
        return await self.execute(Action(effect_class=highest, batch=ActionBatch(actions=actions)))

    def action(self, effect_class: EffectClass.ValueType | None = None, **action: Unpack[Doing]) -> Action:
        default = READ if _ROUTINE & action.keys() else IDEMPOTENT
        return Action(effect_class=effect_class or default, browser=pb.BrowserAction(**action))

    async def go(self, path: str) -> Outcome:
        return await self.do(navigate=pb.NavigateAction(url=path if "://" in path else self.url + path))

    async def look(self, **options: Unpack[Looking]) -> pb.BrowserObservation:
        return (await self.do(observe=pb.ObserveAction(**options))).browser.observation

    async def click(self, effect_class: EffectClass.ValueType = IDEMPOTENT, **locator: Unpack[Locating]) -> Outcome:
        return await self.do(effect_class, click=pb.ClickAction(target=located(**locator)))

    async def fill_form(self, values: Mapping[str, str]) -> Outcome:
        return await self.do(fill_form=pb.FillFormAction(fields=fields(values)))


def host_of(url: str) -> str:
    return urlsplit(url).netloc


def located(**locator: Unpack[Locating]) -> pb.Target:
    return pb.Target(locator=pb.Locator(**locator))


def fields(values: Mapping[str, str]) -> list[pb.FieldValue]:
    return [pb.FieldValue(target=located(field=name), value=value, label=name) for name, value in values.items()]


def status(outcome: Outcome) -> str:
    return pb.BrowserStatus.Name(outcome.browser.status).removeprefix("BROWSER_STATUS_")


@asynccontextmanager
async def executing(
    directory: Path,
    *,
    url: str = "",
    executable: Path | None = None,
    idle_limit: float = 900.0,
    seal: Seal | None = None,
) -> AsyncGenerator[BrowserExecutor]:
    clock = SystemClock()
    bound = {"bound": Secret("only-there", ("elsewhere.example",)), "here": Secret("only-here", (host_of(url),))}
    secrets = MappingSecrets({"password": Secret("hunter22"), **bound})
    config = BrowserConfig(
        directory, executable, patience=0.6, idle_limit=idle_limit, largest_download=100_000, seal=seal
    )
    async with BrowserExecutor(config, secrets, clock, system_ids(clock)) as executor:
        yield executor
