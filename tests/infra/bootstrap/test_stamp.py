from __future__ import annotations

from pathlib import Path

from infra.bootstrap.stamp import digest, is_current, write


def test_the_digest_follows_content_names_and_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = digest([tmp_path])
    assert digest([tmp_path], "word") != first
    (tmp_path / "a").write_text("2")
    second = digest([tmp_path])
    assert second != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest([tmp_path]) not in {first, second}


def test_a_path_that_is_not_there_counts_as_nothing(tmp_path: Path) -> None:
    assert digest([tmp_path / "none"]) == digest([])


def test_a_stamp_is_current_for_what_it_was_written_for_alone(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not is_current(stamp, "x")
    write(stamp, "x")
    assert is_current(stamp, "x")
    assert not is_current(stamp, "y")
