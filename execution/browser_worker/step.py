"""One action while it runs: where it acts, what it has found out, and whether it has touched the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from execution.browser_worker import observe
from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.egress import Failure
from execution.browser_worker.observe import View
from execution.browser_worker.secrets import Vault
from execution.browser_worker.sessions import Session
from execution.browser_worker.stops import Stopped
from execution.browser_worker.tab import Tab
from execution.browser_worker.targets import Targets
from execution.executor import BlobSink
from infra.clock import Clock
from infra.ids import Ids
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_READ, EffectClass


@dataclass(slots=True)
class Step:
    """What the code of an action works with."""

    session: Session
    action: pb.BrowserAction
    effect_class: EffectClass.ValueType
    config: BrowserConfig
    clock: Clock
    ids: Ids
    vault: Vault
    blobs: BlobSink
    progress: Callable[[str], None]
    result: pb.BrowserResult = field(default_factory=pb.BrowserResult)
    message: str = ""
    #: Whether anything that may have an effect has been sent to the page.
    dispatched: bool = False
    #: Position in the tab's network record when the action began.
    mark: int = 0
    #: The tab that the action began in.
    tab: Tab = field(init=False)
    #: Evidence that was stored already, besides the usual.
    evidence: list[BlobRef] = field(default_factory=list[BlobRef])
    #: What was seen last, for the evidence.
    view: View | None = None

    def __post_init__(self) -> None:
        self.begin_in(self.session.tab)

    def begin_in(self, tab: Tab) -> None:
        """Acts in that tab from now on."""
        self.tab = tab
        self.mark = tab.network.mark()
        tab.denials.clear()

    @property
    def targets(self) -> Targets:
        return Targets(self.tab, self.config, self.clock)

    @property
    def reads_only(self) -> bool:
        return self.effect_class == EFFECT_CLASS_READ

    def undialled(self, url: str) -> Failure | None:
        """Why the egress made no connection for an address, the last time that it made none."""
        parts = urlsplit(url)
        return self.session.egress.failure(parts.hostname or "", parts.port or 443 * (parts.scheme == "https") or 80)

    def dispatch(self) -> None:
        """From here on the effect may happen."""
        self.dispatched = True

    def raise_if_denied(self) -> None:
        """Raises Stopped when the tab was about to go where it may not."""
        if self.tab.denials:
            url, reason = self.tab.denials[-1]
            raise Stopped(pb.BROWSER_STATUS_POLICY_DENIED, f"the page was kept from going to {url!r}: {reason}")

    async def observe(self, wanted: pb.ObserveAction) -> None:
        """Looks at the tab as asked and puts it into the result."""
        tab = self.session.tab
        root = await Targets(tab, self.config, self.clock).find(wanted.root) if wanted.HasField("root") else None
        if wanted.scope == pb.OBSERVE_SCOPE_SUBTREE:
            observe.require_root(root)
        else:
            root = None
        whole = observe.wants_all(wanted.scope) or bool(wanted.find)
        view = await observe.look(tab, whole=whole, tokens=wanted.token_budget, root=root, find=wanted.find)
        lines: list[str] | None = None
        if wanted.scope == pb.OBSERVE_SCOPE_DIFF and tab.shown and tab.shown[0] == view.epoch:
            lines = observe.difference(tab.shown[1], view.lines)
        if root is None and not wanted.find:
            tab.shown = (view.epoch, view.lines)
            self.view = view
        self.result.observation.CopyFrom(self._observation(tab, view, lines))
        if wanted.form_fields:
            self.result.observation.form_fields.extend(await observe.form_fields(tab, root))
        self.session.reloaded = False

    def _observation(self, tab: Tab, view: View, lines: list[str] | None) -> pb.BrowserObservation:
        status = tab.network.document_status
        return pb.BrowserObservation(
            url=view.url,
            title=view.title,
            document_epoch=view.epoch,
            text=observe.render(view, self.ids.secret()[:12], status=status, lines=lines),
            diff=lines is not None,
            left_out_above=view.above,
            left_out_below=view.below,
            left_out_covered=view.covered,
            truncated=view.truncated,
            http_status=status,
        )

    async def list_tabs(self) -> None:
        """Puts the session's tabs into the result."""
        del self.result.tabs[:]
        for index, tab in enumerate(self.session.tabs):
            title = "" if tab.dialog else await tab.page.title()
            self.result.tabs.add(index=index, url=tab.url, title=title, active=index == self.session.active)
