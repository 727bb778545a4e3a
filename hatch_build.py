"""Puts into a wheel what the gateway serves: the contracts for Envoy and for people, and the built dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SERVED = {
    "protos/gen/descriptors.binpb": "gateway/served/descriptors.binpb",
    "protos/gen/openapi.json": "gateway/served/openapi.json",
    "dashboard/dist": "gateway/served/dashboard",
}


class Served(BuildHookInterface[Any]):
    """A checkout is installed before its dashboard is built, and serves it from where it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatchling's hook; raises FileNotFoundError for what is not built yet."""
        if version == "editable":
            return
        missing = [path for path in SERVED if not (Path(self.root) / path).exists()]
        if missing:
            raise FileNotFoundError(f"{', '.join(missing)} is not there: `make setup` builds it")
        build_data["force_include"].update(SERVED)
