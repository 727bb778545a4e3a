import pytest

from control.journal.queries.page import page_limit
from infra.errors import InvalidArgument


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (999, 999), (1000, 1000), (1001, 1000)])
def test_a_page_is_as_long_as_asked_within_bounds(asked: int, given: int) -> None:
    assert page_limit(asked) == given


def test_a_page_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_limit(-1)
    assert refused.value.violations[0].field == "page_size"
