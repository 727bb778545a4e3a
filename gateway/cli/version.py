"""`skyagent version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

app = typer.Typer(add_completion=False)


@app.command()
def show() -> None:
    """Show the version."""
    typer.echo(f"skyagent {version()}")


def version() -> str:
    """Of this distribution; a tree that was never installed has none."""
    try:
        return installed("skyagentos")
    except PackageNotFoundError:
        return "0+unknown"
