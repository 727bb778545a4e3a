"""Every decision as pure functions over values and contracts: no clock, no network, no database, no randomness."""
