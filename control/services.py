"""The composition root: every service of the control plane, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from control.artifact_service.service import SERVICE as ARTIFACT_SERVICE
from control.mission_api.service import SERVICE as MISSION_API
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from control.policy_engine.service import SERVICE as POLICY_ENGINE
from control.scheduler.service import SERVICE as SCHEDULER
from infra.mesh import Service

ALL: Mapping[str, Service] = MappingProxyType(
    {service.name: service for service in (MISSION_API, ORCHESTRATOR, POLICY_ENGINE, ARTIFACT_SERVICE, SCHEDULER)}
)
"""`serve all` takes them all, `serve NAME` one; nothing else differs."""
