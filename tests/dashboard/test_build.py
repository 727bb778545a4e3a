"""What is built and committed, without a browser."""

from __future__ import annotations

import gzip
import json
import re

from tests.dashboard.looking import REPOSITORY

DASHBOARD = REPOSITORY / "dashboard"
DIST = DASHBOARD / "dist"
BUDGET = 170 * 1024
MAX_LINES = 250


def test_no_page_loads_more_than_the_budget_of_compressed_script() -> None:
    index = (DIST / "index.html").read_text()
    [entry] = re.findall(r'src="/(assets/[^"]+\.js)"', index)
    [run_page] = (DIST / "assets").glob("live-run-*.js")
    loaded = [(DIST / entry).read_bytes(), run_page.read_bytes()]
    assert sum(len(gzip.compress(script)) for script in loaded) <= BUDGET


def test_the_page_names_no_other_host_and_holds_no_inline_script() -> None:
    index = (DIST / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", index) == []
    assert re.findall(r'(?:src|href)="(?!/assets/|data:)', index) == []


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


def test_every_file_can_be_read_in_one_sitting() -> None:
    written = [path for path in (DASHBOARD / "src").rglob("*.ts*") if "gen" not in path.parts]
    assert [path.name for path in written if len(path.read_text().splitlines()) > MAX_LINES] == []
