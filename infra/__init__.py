"""What every process is made of: the mesh, identity, time, ids, errors, settings, storage handles and telemetry."""
