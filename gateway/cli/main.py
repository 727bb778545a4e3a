"""The commands, and what every one of them has in common: how it fails."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, NamedTuple, cast

import typer
from typer._click.core import Command, Context  # pyright: ignore[reportPrivateUsage]  # typer names no public ones
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from gateway.cli.exits import report
from infra.errors import InvalidArgument, SkyError, Violation


class Noun(NamedTuple):
    """A command or group of commands, in a module of its own that is imported when it is used."""

    help: str
    module: str


COMMANDS: Mapping[str, Noun] = {
    "up": Noun("Run the mesh until Ctrl-C, or in the background with --detach.", "up"),
    "down": Noun("End the mesh of this data directory.", "down"),
    "status": Noun("Show the mesh and its processes.", "status"),
    "run": Noun("Run a mission and watch it.", "run"),
    "runs": Noun("List, show, watch and control runs.", "runs"),
    "missions": Noun("List, show, watch and control missions.", "missions"),
    "schedules": Noun("Start missions by themselves: at times, or after others.", "schedules"),
    "approvals": Noun("List and answer questions that wait for a person.", "approvals"),
    "inbox": Noun("List all that waits for a person, with the command that answers it.", "inbox"),
    "budgets": Noun("List, show and set what runs may use.", "budgets"),
    "artifacts": Noun("List and fetch what runs made.", "artifacts"),
    "templates": Noun("Show missions that need no model.", "templates"),
    "policy": Noun("Ask what policy says of an action.", "policy"),
    "audit": Noun("Verify the journals.", "audit"),
    "db": Noun("Back up, restore, verify, migrate and move the database.", "db"),
    "serve": Noun("Run services of the control plane in this process.", "serve"),
    "worker": Noun("Run a worker in this process.", "worker"),
    "dashboard": Noun("Print the address of the dashboard, with the key to it.", "dashboard"),
    "doctor": Noun("Check this machine and say how to mend it.", "doctor"),
    "version": Noun("Show the version.", "version"),
    "completion": Noun("Print the completion script of a shell.", "completion"),
}


class Nouns(TyperGroup):
    """Lists commands without importing them."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """A stand-in that only knows its help."""
        noun = COMMANDS.get(cmd_name)
        return TyperCommand(cmd_name, help=noun.help) if noun else None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The real one."""
        self.commands = dict.fromkeys(COMMANDS)  # pyright: ignore[reportAttributeAccessIssue]  # for "Did you mean"
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest


def _load(name: str) -> Command:
    app = cast(typer.Typer, import_module(f"gateway.cli.{COMMANDS[name].module}").app)
    command = get_command(app)
    command.name = name
    return command


app = typer.Typer(cls=Nouns, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def skyagent(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,  # noqa: FBT002
) -> None:
    """A self-hosted operating environment for autonomous AI agents.

    Settings are SKYAGENT_* variables; SKYAGENT_DATA_DIR is where everything is kept.
    """
    if version:
        _load("version")(standalone_mode=False)
        raise typer.Exit


def main() -> None:
    """Runs the command line and exits with one of the documented codes."""
    try:
        _require_text(sys.argv[1:])
        app(prog_name="skyagent")
    except SkyError as error:
        sys.exit(report(error))


def _require_text(arguments: list[str]) -> None:
    """Python hands bytes that are no UTF-8 on as lone surrogates, which nothing here could store or send."""
    for position, argument in enumerate(arguments, 1):
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            shown = argument.encode("utf-8", "surrogateescape")
            problem = f"{shown!r} is not UTF-8: set the terminal to UTF-8, or rename the file"
            raise InvalidArgument(Violation(f"argument {position}", problem), reason="NOT_UTF_8")
