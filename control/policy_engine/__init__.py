"""The policy engine: judges every attempt by rules that people wrote, before it is dispatched."""
