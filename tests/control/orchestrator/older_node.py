"""`skyagent` as it was with fold 1: it claims nothing newer, and knows no kind of event that came later."""

from __future__ import annotations

import control.core.run as fold

FOLD_VERSION = 1
LAST_KIND = 25
"""Number of the last kind of event that fold 1 knew."""


def _unknown(folded: fold.RunFold, _body: object, event: fold.ev.RunEvent) -> None:
    raise fold.IllegalEvent(
        "UNKNOWN_EVENT", f"event {event.seq} of run {folded.state.run_id} is of a kind unknown here"
    )


def pretend() -> None:
    """Before anything else is imported that asks for the version."""
    fold.FOLD_VERSION = FOLD_VERSION
    for field in fold.ev.EventBody.DESCRIPTOR.fields:
        if field.number > LAST_KIND:
            fold._APPLY[field.name] = _unknown  # pyright: ignore[reportPrivateUsage]


if __name__ == "__main__":
    pretend()
    from gateway.cli.main import main

    main()
