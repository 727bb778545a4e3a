"""Paging by the id of the last row: ids are ULIDs, so their order is that of creation."""

from __future__ import annotations

from infra.errors import InvalidArgument, Violation

MAX_PAGE = 1000


def page_limit(page_size: int) -> int:
    """How many rows to return; 0 means 50."""
    if page_size < 0:
        raise InvalidArgument(Violation("page_size", f"{page_size} is negative: give 0 to {MAX_PAGE}"))
    return min(page_size or 50, MAX_PAGE)
