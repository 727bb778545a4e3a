"""The edge: Envoy's configuration, rendered from settings and validated by Envoy itself before it starts.

`edge.py` says what there is to know, `listeners`, `filters`, `routes`, `replies` and `clusters` each render one noun of
Envoy's own vocabulary, `bootstrap.py` puts them together, `process.py` writes, validates and starts.
"""
