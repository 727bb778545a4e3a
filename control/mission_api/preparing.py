"""From what a person asked to a spec that a plan can be made from: inputs resolved, files stored, bounds set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.agentfs import AgentFs
from control.core.inputs import Resolved, files_needed, validate_inputs
from control.core.tables import MAX_BYTES
from control.core.templates import Template, template_named
from infra.blobs import BlobStore
from infra.errors import InvalidArgument, Violation
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1 import mission_pb2 as pb

_RUNTIMES = {
    "browser": pb.RUNTIME_BROWSER,
    "desktop": pb.RUNTIME_DESKTOP,
    "workspace": pb.RUNTIME_WORKSPACE,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A spec whose every input is resolved, and the template that it follows."""

    spec: pb.MissionSpec
    template: Template


@dataclass(frozen=True, slots=True)
class Preparation:
    """Checks and completes specs. `dry_run` makes every mission a dry run, whatever it says."""

    templates: Mapping[str, Template]
    blobs: BlobStore
    agentfs: AgentFs
    dry_run: bool

    async def prepare(self, asked: pb.MissionSpec, tenant: str) -> Prepared:
        """Raises InvalidArgument with one violation for each problem of the spec."""
        template = template_named(self.templates, asked.template)
        if asked.runtime not in (pb.RUNTIME_UNSPECIFIED, pb.RUNTIME_AUTO, _RUNTIMES[template.runtime]):
            problem = f"{template.name} acts in a {template.runtime}: choose that, or leave it open"
            raise InvalidArgument(Violation("spec.runtime", problem))
        resolved = validate_inputs(template, asked, await self._read(template, asked, tenant))
        return Prepared(await self._complete(template, asked, resolved, tenant), template)

    async def _read(self, template: Template, asked: pb.MissionSpec, tenant: str) -> Mapping[str, bytes]:
        """The files that the template looks at; every file must be one that the tenant may read."""
        missing = [
            Violation(f"spec.files[{index}]", f"there are no bytes {file.digest}: upload them first")
            for index, file in enumerate(asked.files)
            if await self.agentfs.media_type(tenant, file.digest) is None
        ]
        if missing:
            raise InvalidArgument(*missing, reason="FILE_NOT_FOUND")
        needed = {name: file.digest for name, file in files_needed(template, asked).items()}
        for name, digest in needed.items():
            if await self.blobs.size(digest) > MAX_BYTES:
                raise InvalidArgument(Violation(f"spec.inputs.{name}", f"a table has at most {MAX_BYTES:,} bytes"))
        return {digest: await self.blobs.get(digest) for digest in needed.values()}

    async def _complete(
        self, template: Template, asked: pb.MissionSpec, resolved: Resolved, tenant: str
    ) -> pb.MissionSpec:
        spec = pb.MissionSpec()
        spec.CopyFrom(asked)
        del spec.inputs[:]
        spec.inputs.extend(pb.Input(name=name, value=value) for name, value in resolved.inputs.items() if value)
        del spec.allowed_hosts[:]
        spec.allowed_hosts.extend(resolved.allowed_hosts)
        roles = {file.digest: name for name, file in files_needed(template, asked).items()}
        for file in spec.files:
            file.role = roles.get(file.digest, file.role)
        written = {given.name: given.value for given in asked.inputs if given.name in resolved.tables and given.value}
        spec.files.extend([await self._kept(name, text, tenant) for name, text in written.items()])
        spec.limits.max_steps = resolved.max_steps
        spec.runtime = _RUNTIMES[template.runtime]
        spec.dry_run = asked.dry_run or self.dry_run
        return spec

    async def _kept(self, name: str, text: str, tenant: str) -> BlobRef:
        """A table that was written into the request, as the file that it might have been."""
        blob = await self.blobs.put(text.encode())
        kept = BlobRef(digest=blob.digest, size=blob.size, media_type="text/plain; charset=utf-8", role=name)
        await self.agentfs.give(tenant, kept)
        return kept
