"""What is vendored says the same as the wheels that are used at run time."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from protovalidate._gen.buf.validate import validate_pb  # pyright: ignore[reportPrivateUsage]

PROTOS = Path(__file__).resolve().parents[2] / "protos"
GOOGLE = sorted((PROTOS / "third_party" / "google").rglob("*.proto"))


@pytest.mark.parametrize("vendored", GOOGLE, ids=lambda path: path.stem)
def test_googles_contracts_are_those_of_the_wheel(vendored: Path) -> None:
    name = vendored.relative_to(PROTOS / "third_party")
    (shipped,) = [file for file in files("googleapis-common-protos") or () if Path(str(file)) == name]
    assert vendored.read_text() == shipped.read_text()


def test_validate_proto_is_that_of_the_protovalidate_wheel() -> None:
    committed = FileDescriptorSet.FromString((PROTOS / "gen" / "descriptors.binpb").read_bytes())
    (ours,) = [file for file in committed.file if file.name == "buf/validate/validate.proto"]
    theirs = FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    for proto in (ours, theirs):
        proto.ClearField("source_code_info")
    assert ours == theirs
