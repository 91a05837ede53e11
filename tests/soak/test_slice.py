"""Some trials of each group of the soak; `make soak` makes them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.soak.disks import SMALL
from tests.soak.groups import GROUPS

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    """Of a process of its own: one that has trained forks no more."""
    file = tmp_path_factory.mktemp("soak") / "results.json"
    words = [sys.executable, "-m", "tests.soak", "--slice", "--results", str(file)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert file.is_file(), done.stdout + done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("group", GROUPS)
def test_ends_as_it_should(results, group):
    tried = {one["group"]: one["tried"] for one in results["groups"]}
    assert tried.get(group) or group == SMALL  # which needs a right that not everybody has
    found = [trial for trial in results["faults"] if trial["group"] == group]
    assert not found, json.dumps(found, indent=2)
