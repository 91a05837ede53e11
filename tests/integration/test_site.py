"""The site builds: every page is in its navigation, every link and reference resolves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="not installed: mkdocs (the extra docs)")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr[-4000:]
    return folder


def test_every_page_is_there(site):
    pages = sorted((ROOT / "docs").rglob("*.md"))
    missing = [
        page
        for page in pages
        if not (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()
    ]
    assert missing == []


def test_settings_are_shown_with_their_words(site):
    scores = (site / "reference" / "scores.html").read_text(encoding="utf-8")
    assert "Weight of the past in the average of uncertainty." in scores
    options = (site / "reference" / "command.html").read_text(encoding="utf-8")
    assert "--learning-rate" in options and "Peak learning rate" in options


def test_nothing_is_fetched(site):
    elsewhere = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"https?://")
    loading = [
        page.name
        for page in site.rglob("*.html")
        if elsewhere.search(page.read_text(encoding="utf-8"))
    ]
    assert loading == []
