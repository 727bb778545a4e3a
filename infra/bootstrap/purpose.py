"""What a machine can be made ready for. Each purpose includes those before it."""

from enum import IntEnum


class Purpose(IntEnum):
    """Ordered: whoever is ready for TEST is ready for RUN."""

    RUN = 1
    TEST = 2
    BENCH = 3

    @property
    def pins(self) -> str:
        """Name of the file with the exact versions, below requirements/; a bench is a test with peers."""
        return "run.txt" if self is Purpose.RUN else "test.txt"
