"""`skyagent artifacts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.output import console, print_list, when
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import Services, connected
from infra.digest import Digester
from infra.errors import DataLoss
from infra.settings import load_settings
from skyagent.artifact.v1 import artifact_service_pb2 as api

COLUMNS = ("artifact", "name", "bytes", "type", "made", "run")
DIGEST = "b3:"

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List and fetch what runs made.")


@app.command("ls")
def list_artifacts(
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List artifacts, newest first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            request = api.ListArtifactsRequest(run_id=run, page_size=limit)
            found = (await services.artifacts.ListArtifacts(request)).artifacts
        print_list(found, COLUMNS, [_row(artifact) for artifact in found], json_lines=json_lines)

    perform(work())


@app.command("get")
def get_artifact(
    name: Annotated[str, typer.Argument(metavar="ID|DIGEST", help="Artifact, or b3:… of any stored bytes.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; its own name by default.")] = None,
) -> None:
    """Fetch an artifact, checking its digest on the way."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            digest, file_name = await _named(services, name)
            target = output or Path(Path(file_name).name)
            size = await _fetch(services, digest, target)
        console.print(f"{target}  {size:,} bytes  {digest}", markup=False)

    perform(work())


async def _named(services: Services, name: str) -> tuple[str, str]:
    """Digest and file name."""
    if name.startswith(DIGEST):
        return name, name.removeprefix(DIGEST)
    artifact = (await services.artifacts.GetArtifact(api.GetArtifactRequest(artifact_id=name))).artifact
    return artifact.blob.digest, artifact.name or artifact.artifact_id


async def _fetch(services: Services, digest: str, target: Path) -> int:
    """Never leaves half a file, or a wrong one, under the name that was asked for."""
    draft, digester, size = target.with_name(f".{target.name}.part"), Digester(), 0
    try:
        with draft.open("wb") as file:
            async for piece in services.artifacts.Download(api.DownloadRequest(digest=digest)):
                file.write(piece.data)
                digester.update(piece.data)
                size += len(piece.data)
        if digester.digest() != digest:
            raise DataLoss("DIGEST_MISMATCH", f"the bytes that came are {digester.digest()}, not {digest}")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return size


def _row(artifact: api.Artifact) -> tuple[str, ...]:
    blob = artifact.blob
    return (
        artifact.artifact_id,
        artifact.name,
        f"{blob.size:,}",
        blob.media_type,
        when(artifact.create_time),
        artifact.run_id,
    )
