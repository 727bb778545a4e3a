"""`python -m gateway.cli` is `skyagent`."""

from gateway.cli.main import main

main()
