"""Applications and documents that missions are tried on."""
