"""`python3 -m infra.bootstrap run|test|bench`: installs what is missing for that purpose."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the very thing to find out, before anything newer is parsed
    sys.exit(f"bootstrap: Python >= 3.11 is needed, this is {sys.version.split()[0]}; say `make PYTHON=python3.12 run`")

from infra.bootstrap.main import main

sys.exit(main(sys.argv[1:]))
