"""Google's options of contracts, typed: the stubs in their wheel do not say what each holds."""

from typing import TYPE_CHECKING, cast

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldOptions, MethodOptions

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedScalarFieldContainer
    from google.protobuf.internal.extension_dict import _ExtensionFieldDescriptor as Extension  # pyright: ignore[reportPrivateUsage]

HTTP = cast("Extension[MethodOptions, http_pb2.HttpRule]", annotations_pb2.http)
BEHAVIOUR = cast("Extension[FieldOptions, RepeatedScalarFieldContainer[int]]", field_behavior_pb2.field_behavior)


def http_rule(method: MethodDescriptor) -> http_pb2.HttpRule | None:
    """How the method is called over HTTP; None when it is for gRPC only."""
    options = method.GetOptions()
    return options.Extensions[HTTP] if options.HasExtension(HTTP) else None


def behaviours(field: FieldDescriptor) -> frozenset[int]:
    """The google.api.field_behavior values of a field."""
    return frozenset(field.GetOptions().Extensions[BEHAVIOUR])
