"""The whole document."""

import importlib
import json
from collections.abc import Collection, Iterator
from typing import cast

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import status_pb2

from openapi.comments import Comments, read_comments
from openapi.json_value import JsonObject
from openapi.operations import bindings, paths
from openapi.schemas import Schemas

PACKAGE = "skyagent."


def render(files: FileDescriptorSet, served: Collection[str]) -> str:
    """The document as JSON text, the same for the same contracts."""
    return json.dumps(document(files, served), indent=1, ensure_ascii=False) + "\n"


def document(files: FileDescriptorSet, served: Collection[str]) -> JsonObject:
    """The document of the services that are `served`, by full name.

    `files` must carry source information, and their generated modules must be importable.
    """
    comments = read_comments(files)
    schemas = Schemas(comments)
    known = (service for service in described(files) if service.full_name in served)
    services = sorted(known, key=lambda service: service.full_name)
    found = paths(services, schemas)
    error = schemas.reference(cast("Descriptor", status_pb2.Status.DESCRIPTOR))
    over_http = [service for service in services if any(True for each in service.methods for _ in bindings(each))]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SkyAgentOS",
            "version": "v1",
            "description": "Missions, runs, approvals, policies, artifacts. The same contracts are served over gRPC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [tag(service, comments) for service in over_http],
        "paths": found,
        "components": {
            "schemas": schemas.components(),
            "responses": {
                "Error": {
                    "description": "Refused or failed: a canonical gRPC code, one sentence, and typed details.",
                    "content": {"application/json": {"schema": error}},
                }
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def described(files: FileDescriptorSet) -> Iterator[ServiceDescriptor]:
    """The services of our own contracts, as the generated modules describe them."""
    for file in files.file:
        if not file.package.startswith(PACKAGE):
            continue
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        for service in file.service:
            yield descriptor_pool.Default().FindServiceByName(f"{file.package}.{service.name}")


def tag(service: ServiceDescriptor, comments: Comments) -> JsonObject:
    """A service as the heading its operations stand under."""
    return {"name": service.name, "description": comments.get(service.full_name, "")}
