from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from control.journal.chain import event_hash, first_link, fork_link, payload_digest

PREV = bytes(range(32))


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "big")


def test_an_event_is_hashed_as_every_journal_so_far_was() -> None:
    digest = blake3(b"payload").digest()
    written = b"".join(
        (
            *(b"skyagent.journal.event.v1\0", PREV, number(7), number(3), number(5), number(1234)),
            *(number(5, 2), number(8, 2), b"run-1", b"append-1", digest),
        )
    )
    assert payload_digest(b"payload") == digest
    assert event_hash(PREV, "run-1", 7, 3, 5, 1234, "append-1", digest) == blake3(written).digest()


def test_a_run_begins_as_every_run_so_far_did() -> None:
    assert first_link("run-1") == blake3(b"skyagent.journal.run.v1\0run-1").digest()


def test_a_fork_begins_as_every_fork_so_far_did() -> None:
    written = b"".join(
        (
            *(b"skyagent.journal.fork.v1\0", number(7), number(0), number(0), number(0)),
            *(number(5, 2), number(8, 2), b"child", b"parent-1", PREV),
        )
    )
    assert fork_link("child", "parent-1", 7, PREV) == blake3(written).digest()


events = st.tuples(
    st.text(max_size=4),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.text(max_size=4),
    st.binary(max_size=3).map(payload_digest),
)


@given(events, events)
def test_two_events_share_a_hash_only_when_they_are_the_same(
    one: tuple[str, int, int, int, int, str, bytes], other: tuple[str, int, int, int, int, str, bytes]
) -> None:
    assert (event_hash(PREV, *one) == event_hash(PREV, *other)) is (one == other)
