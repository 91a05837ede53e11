"""What others wrote is read in few places: a new one is bounded, and in the walk over readers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sentei

SOURCE = Path(sentei.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

PARSERS = {"json", "yaml", "torch", "pickle", "safetensors", "Image", "lzma", "gzip", "csv"}
"""Whose ``load``, ``loads`` or ``open`` may raise anything, or never end."""

KNOWN = {
    "sentei.untrusted": "the one place",
    "sentei.data.formats": "files of data, of any encoding and packed; inside reading()",
    "sentei.data.separated": "text in memory, inside the reader of data.formats",
    "sentei.distill.cache": "a cell of its own database, whose errors it explains",
    "sentei.locks": "locks and leases: bytes that nobody parses",
    "sentei.manifest": "checksums: bytes that nobody parses",
    "sentei.models.folder": "the text of shrink.json, inside reading()",
    "sentei.models.pretrained": "tensors, inside reading()",
    "sentei.pack.files": "tensors, inside reading()",
    "sentei.pack.folder": "tensors, inside reading()",
    "sentei.pruning.checkpoint": "tensors, inside reading()",
    "sentei.run.verify": "tensors, inside reading()",
    "sentei.tasks.pictures": "images, inside reading()",
    # our own files, or those of installed packages
    "sentei.compare.collect": "records in memory; the sentence of a failed run, as it is",
    "sentei.compare.execute": "the log of a run, as it is",
    "sentei.methods": "the source of a method",
    "sentei.models.demo": "installed packages",
    "sentei.run.reporting": "the weights that the run has just written",
    "sentei.runtime.bench.exported": "a sentence that this process wrote",
    "sentei.runtime.bench.machine": "/proc",
    "sentei.runtime.library": "a compiled kernel, by its checksum",
    "sentei.shrink.vocabulary.cut": "a tokenizer in memory",
    "sentei.tasks.demo": "installed packages",
}
"""Modules that read or parse by themselves, and why they may."""


def name(path: Path) -> str:
    parts = ("sentei", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def reads(source: str) -> set[str]:
    """The calls of a module that read a file, or parse what was in one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, last = called.rpartition(".")
        parses = owner in PARSERS and last in ("load", "loads", "safe_load", "open", "reader")
        if parses or last in ("safe_open", "load_file", "read_bytes", "model_validate_json"):
            found.add(called)
        # of a path, not untrusted's own, and not to write
        elif last == "read_text" and owner and owner != "untrusted":
            found.add(called)
        elif last == "open" and owner != "os" and _reads(node, called):
            found.add(called)
    return found


def _reads(call: ast.Call, called: str) -> bool:
    texts = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str)]
    return any("r" in mode for mode in modes) or (called == "open" and len(call.args) == 1)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_who_reads_by_himself_is_known(path):
    found = reads(path.read_text(encoding="utf-8"))
    if name(path) not in KNOWN:
        assert not found, (
            f"{name(path)} calls {found}: read through sentei.untrusted, or inside its reading(), "
            "and add the reader to tests/integration/test_readers.py"
        )


@pytest.mark.parametrize(
    "source",
    [
        "json.loads(text)",
        "yaml.safe_load(text)",
        "torch.load(path)",
        "path.read_text()",
        "Path(x).read_bytes()",
        "with safe_open(path) as file: pass",
        "Record.model_validate_json(text)",
        "path.open('rb')",
        "open(path)",
        "Image.open(file)",
    ],
)
def test_all_forms_are_seen(source):
    """So that the test above can fail."""
    assert reads(source)
    assert not reads("untrusted.read_text(path); json.dumps(x); path.open('w'); path.write_text(x)")
