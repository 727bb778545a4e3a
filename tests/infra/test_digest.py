from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from infra.digest import Digester, digest_hex, digest_message, digest_of
from skyagent.execution.v1.worker_service_pb2 import Capabilities


def test_a_digest_is_that_of_the_blake3_specification() -> None:
    assert digest_of(b"") == "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.lists(st.binary()))
def test_bytes_in_pieces_have_the_digest_of_the_whole(pieces: list[bytes]) -> None:
    digester = Digester()
    for piece in pieces:
        digester.update(piece)
    assert digester.digest() == digest_of(b"".join(pieces))


@given(st.dictionaries(st.text(), st.text(), min_size=2))
def test_the_order_of_a_map_does_not_change_the_digest_of_a_message(labels: dict[str, str]) -> None:
    turned = dict(reversed(labels.items()))
    assert digest_message(Capabilities(labels=labels)) == digest_message(Capabilities(labels=turned))


def test_another_value_has_another_digest() -> None:
    assert digest_message(Capabilities(kind="a")) != digest_message(Capabilities(kind="b"))


def test_the_bare_digits_are_those_of_blake3() -> None:
    assert digest_hex(digest_of(b"x")) == blake3(b"x").hexdigest()
