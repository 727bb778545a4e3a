"""SQL of the journal that every backend shares; each function runs inside its caller's transaction."""
