"""Going from document to document."""

from __future__ import annotations

from typing import Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Response

from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from skyagent.execution.v1 import browser_pb2 as pb

_SERVER_ERROR: Final = 500


async def navigate(step: Step, action: pb.NavigateAction) -> None:
    """Goes to an address and waits until the document is usable."""
    refuse_outside(step, action.url)
    step.dispatch()
    await load(step, action.url)


async def go_back(step: Step) -> None:
    """Goes one entry back in the history of the tab."""
    step.dispatch()
    try:
        response = await step.tab.page.go_back(wait_until="domcontentloaded", timeout=0)
    except PlaywrightError as error:
        raise _unreachable(step, step.tab.url, error) from error
    if response is None and step.tab.url == "about:blank":
        raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, "the tab has no page to go back to")
    _raise_for_status(step, response)


async def reload(step: Step) -> None:
    """Loads the current document again."""
    refuse_outside(step, step.tab.url)
    step.dispatch()
    try:
        response = await step.tab.page.reload(wait_until="domcontentloaded", timeout=0)
    except PlaywrightError as error:
        raise _unreachable(step, step.tab.url, error) from error
    _raise_for_status(step, response)


async def load(step: Step, url: str) -> None:
    """Loads an address in the step's tab. Raises Stopped for what could not be reached or broke at the server."""
    try:
        response = await step.tab.page.goto(url, wait_until="domcontentloaded", timeout=0)
    except PlaywrightError as error:
        raise _unreachable(step, url, error) from error
    if url == "about:blank":
        step.tab.network.document_status = 0
    _raise_for_status(step, response)


def refuse_outside(step: Step, url: str) -> None:
    """Raises Stopped for an address that this mission may not open."""
    if reason := step.session.hosts.refusal(url):
        raise Stopped(pb.BROWSER_STATUS_POLICY_DENIED, reason)


def _raise_for_status(step: Step, response: Response | None) -> None:
    step.raise_if_denied()
    if response is not None and response.status >= _SERVER_ERROR:
        raise Stopped(
            pb.BROWSER_STATUS_NETWORK_ERROR,
            f"{response.url} answered with HTTP {response.status} {response.status_text}".rstrip(),
        )


def _unreachable(step: Step, url: str, error: PlaywrightError) -> Exception:
    step.raise_if_denied()
    if "net::" in error.message:
        failure = step.undialled(url)
        if failure and failure.forbidden:
            return Stopped(pb.BROWSER_STATUS_POLICY_DENIED, failure.why)
        said = error.message.split("\n", 1)[0].partition("net::")[2].split(" ", 1)[0]
        why = failure.why if failure else said
        return Stopped(pb.BROWSER_STATUS_NETWORK_ERROR, f"{url} could not be reached: {why}")
    return error
