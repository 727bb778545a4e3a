"""`skyagent worker …` as it is, with somebody who writes down what it records: `python -m … WITNESS worker KIND …`."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.cli.main import main
from tests.chaos.witness import witness_outcomes

if __name__ == "__main__":
    witness_outcomes(Path(sys.argv.pop(1)))
    main()
