"""Arrays that are packed whole: PostgreSQL must read in them what was put into them."""

from collections.abc import Callable, Generator
from typing import cast

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.db import arrays
from tests.servers.postgres import Postgres

BIG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def connection(postgres: Postgres) -> Generator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres.address(), autocommit=True) as made:
        arrays.register(cast("psycopg.Connection[object]", made))
        yield made


@pytest.mark.parametrize(
    ("pack", "values"),
    [
        (arrays.texts, TEXT),
        (arrays.byte_strings, st.binary(max_size=80)),
        (arrays.byte_strings, st.binary(min_size=32, max_size=32)),
        (arrays.bigints, BIG),
        (arrays.bigints, st.none() | BIG),
        (arrays.integers, st.integers(-(2**31), 2**31 - 1)),
        (arrays.booleans, st.booleans()),
    ],
)
def test_the_server_reads_what_was_packed(
    connection: psycopg.Connection[tuple[object, ...]],
    pack: Callable[[list[object]], object],
    values: st.SearchStrategy[object],
) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(values, max_size=12))
    def holds(given_values: list[object]) -> None:
        row = connection.execute("SELECT %b", (pack(given_values),)).fetchone()
        assert row is not None
        assert row[0] == given_values

    holds()
