"""What runs took and made: an index of artifacts, who may read which bytes, and a folder per run for people.

    agentfs/missions/<run_id>/{inputs,workspace,artifacts,observations}

Bytes live in the blob store; the folders hold links to them. The orchestrator records, the artifact service reads.
"""

from control.agentfs.folders import RunFolders
from control.agentfs.index import AgentFs, ArtifactPage, ArtifactQuery, Recorded, shared_agentfs

__all__ = ["AgentFs", "ArtifactPage", "ArtifactQuery", "Recorded", "RunFolders", "shared_agentfs"]
