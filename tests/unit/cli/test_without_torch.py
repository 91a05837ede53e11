"""What needs no model answers at once: torch and transformers take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["datasets", "jinja2", "matplotlib", "numpy", "pyarrow", "torch", "transformers"]
CODE = """
import json, sys
from sentei.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--help"], 0, "Prune pretrained transformers"),
        (["--version"], 0, "."),
        (["prune", "--help"], 0, "--learning-rate"),
        (["bench", "--help"], 0, "--engine"),
        (["export", "--help"], 0, "--tolerance"),
        (["export", "x", "--to", "onxx"], 2, "did you mean 'onnx'"),
        (["prune", "--modle", "x"], 2, "--modle"),
        (["prune", "--epochs", "many", "--out", "x"], 2, "--epochs"),
        (["methods"], 0, "platon"),
        (["methods", "list", "pla*", "--json"], 0, "platon"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_torch_is_not_imported(arguments, status, word):
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    *words, modules = done.stderr.strip().split("\n")
    assert done.returncode == status and word in done.stdout + "\n".join(words), done.stderr
    assert not {*HEAVY} & {*json.loads(modules)}
