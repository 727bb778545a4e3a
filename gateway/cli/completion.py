"""`skyagent completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

app = typer.Typer(add_completion=False)


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def show(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the completion script of a shell: `eval "$(skyagent completion bash)"`."""
    typer.echo(get_completion_script(prog_name="skyagent", complete_var="_SKYAGENT_COMPLETE", shell=shell.value))
