"""Server reflection as grpc.reflection.v1 and v1alpha; grpcio-reflection has only the older name of one protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

_V1 = "grpc.reflection.v1"
SERVICE_V1 = f"{_V1}.ServerReflection"


def enable_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Let grpcurl, buf curl and the like list and describe these services (full names)."""
    _describe_v1()
    names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME, SERVICE_V1]
    pool = cast("descriptor_pool.DescriptorPool", _Pool(descriptor_pool.Default()))
    reflection.enable_server_reflection(names, server, pool)
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names, pool).ServerReflectionInfo,  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE_V1, {"ServerReflectionInfo": method})]
    )


class _Pool:
    """A descriptor pool that also knows in which file a method is; protobuf's own knows that of services only."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> object:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindServiceByName(symbol.rpartition(".")[0]).file

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)


def _describe_v1() -> None:
    """Put v1 into the descriptor pool, so that it can describe itself: v1alpha under its new name."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    renamed = json_format.MessageToJson(alpha).replace(f"{_V1}alpha", _V1)
    v1 = json_format.Parse(renamed, descriptor_pb2.FileDescriptorProto())
    v1.name = "grpc/reflection/v1/reflection.proto"
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
