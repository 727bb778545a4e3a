"""What passes on a connection that carries one request."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.browser_worker.one_request import OneRequest


def _answered(request: bytes, *pieces: bytes) -> bytes:
    one = OneRequest()
    assert one.up(request) == request
    return b"".join(one.down(piece) for piece in pieces) + one.rest()


GET, POST = b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MARKED = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00"


@given(st.sampled_from([ANSWER, EARLY + ANSWER, SWITCHED, b"no HTTP\n"]), st.lists(st.integers(0, 90), max_size=6))
def test_an_answer_is_marked_as_the_last_however_it_comes_in_pieces(answer: bytes, cuts: list[int]) -> None:
    ends = sorted({0, *cuts, len(answer)})
    pieces = [answer[start:end] for start, end in pairwise(ends)]
    assert _answered(GET, *pieces) == answer.replace(ANSWER, MARKED)


@pytest.mark.parametrize("pieces", [(), (EARLY,), (b"HTTP/1",)])
def test_only_what_may_have_changed_something_is_told_to_be_lost(pieces: tuple[bytes, ...]) -> None:
    assert b" 502 Lost\r\n" in _answered(POST, *pieces)
    assert _answered(GET, *pieces) == b"".join(pieces)
    assert _answered(b"\x16\x03\x01", *pieces) == b"".join(pieces)
