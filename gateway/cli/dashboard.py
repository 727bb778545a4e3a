"""`skyagent dashboard`."""

from __future__ import annotations

import typer

from infra.errors import Precondition
from infra.settings import Settings, load_settings

app = typer.Typer(add_completion=False)


@app.command()
def show() -> None:
    """Print the address of the dashboard, with the key to it: open it in a browser, show it to nobody."""
    typer.echo(dashboard_address(load_settings()))


def dashboard_address(settings: Settings) -> str:
    """The key stands behind the #: browsers send that part to no server. Raises Precondition before the first `up`."""
    try:
        token = settings.token_path.read_text().strip()
    except OSError as bad:
        raise Precondition("NO_TOKEN", f"cannot read {settings.token_path}: {bad}; `skyagent up` makes it") from bad
    return f"http://{settings.gateway.host}:{settings.gateway.port}/#token={token}"
