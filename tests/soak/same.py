"""Whether two runs ended in the same: weights, masks, pruner's state, journal, facts."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

CLOCK = ("created", "seconds", "environment")
"""Facts of a report that are of the time and the machine."""


def difference(out: Path, reference: Path) -> str:
    """The first thing in which a folder is not the reference; empty where there is none.

    A run by what it is to be the same in, a comparison by its runs, any other by its files.
    """
    if (reference / "run.yaml").is_file():
        return _of_runs(out, reference, out, reference)
    if not (reference / "plan.yaml").is_file():
        return _of_files(out, reference)
    for report in sorted(reference.glob("runs/**/report.json")):
        run = report.parent.relative_to(reference)
        if found := _of_runs(out / run, reference / run, out, reference):
            return f"{run}/{found}"
    return _values(*(_comparison(folder) for folder in (out, reference)))


def _of_files(out: Path, reference: Path) -> str:
    for file in sorted(path for path in reference.rglob("*") if path.is_file()):
        name = file.relative_to(reference)
        if not (out / name).is_file() or (out / name).read_bytes() != file.read_bytes():
            return f"{name} differs"
    return ""


def _of_runs(run: Path, reference: Path, out: Path, other: Path) -> str:
    """The same of two runs, in the folders ``out`` and ``other`` of which facts may tell."""
    for folder in _folders(reference):
        for name in ("model.safetensors", "pruner.safetensors"):
            if (reference / folder / name).is_file():
                if found := _tensors(run / folder / name, reference / folder / name):
                    return f"{folder}/{name}: {found}"
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            if (reference / folder / name).is_file():
                if _members(run / folder / name) != _members(reference / folder / name):
                    return f"{folder}/{name} differs"
        if (reference / folder / "trainer_state.json").is_file():
            if found := _values(*(_state(one / folder) for one in (run, reference))):
                return f"{folder}/trainer_state.json: {found}"
    for name in ("metrics.jsonl", "dense/metrics.jsonl"):
        if (reference / name).is_file() and _lines(run / name) != _lines(reference / name):
            return f"{name}: {_values(_lines(run / name), _lines(reference / name))}"
    if (reference / "recipe.yaml").is_file():
        ours, theirs = (folder / "recipe.yaml" for folder in (run, reference))
        if not ours.is_file() or ours.read_bytes() != theirs.read_bytes():
            return "recipe.yaml differs"
    if (reference / "report.json").is_file():
        if found := _values(_facts(run, out), _facts(reference, other)):
            return f"report.json: {found}"
    return ""


def _folders(reference: Path) -> list[str]:
    """Those with weights: the models, and the last checkpoint."""
    checkpoints = sorted(
        (path for path in reference.glob("checkpoints/checkpoint-*") if path.is_dir()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    last = [f"checkpoints/{checkpoints[-1].name}"] if checkpoints else []
    return [*(name for name in ("model", "dense/model") if (reference / name).is_dir()), *last]


def _tensors(one: Path, other: Path) -> str:
    if not one.is_file():
        return "is not there"
    if one.read_bytes() == other.read_bytes():
        return ""
    try:
        return _contents(one, other)
    except SafetensorError as error:
        return f"cannot be read ({error})"


def _contents(one: Path, other: Path) -> str:
    with safe_open(one, "np") as mine, safe_open(other, "np") as theirs:
        if set(mine.keys()) != set(theirs.keys()):
            return "other names"
        for name in theirs.keys():
            left, right = mine.get_tensor(name), theirs.get_tensor(name)
            if left.dtype != right.dtype or left.tobytes() != right.tobytes():
                return f"{name} differs"
        left, right = mine.metadata() or {}, theirs.metadata() or {}
    return _values(*({key: _plain(value) for key, value in m.items()} for m in (left, right)))


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _members(path: Path) -> dict[str, bytes]:
    """What a file of torch holds, without when and under which name it was packed."""
    if not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name.partition("/")[2]: archive.read(name)
                for name in archive.namelist()
                if not name.endswith((".data/serialization_id", "/byteorder"))
            }
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        return {"": path.read_bytes()}


def _state(folder: Path) -> Any:
    return _without_clock(_read(folder / "trainer_state.json"))


def _read(path: Path, lines: bool = False) -> Any:
    """A file of JSON, or of lines of it; of one that is none, why."""
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _lines(path: Path) -> Any:
    return _read(path, lines=True)


def _facts(run: Path, root: Path) -> Any:
    facts = _named(_read(run / "report.json"), root)
    return {k: v for k, v in facts.items() if k not in CLOCK} if isinstance(facts, dict) else facts


def _comparison(folder: Path) -> Any:
    facts = _named(_without_clock(_read(folder / "compare.json")), folder)
    return {**facts, "created": ""} if isinstance(facts, dict) else facts


def _named(value: Any, root: Path) -> Any:
    """A value of JSON, with one name for the folder that it is of."""
    return json.loads(json.dumps(value).replace(str(root), "OUT"))


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        clock = re.compile("runtime|per_second|seconds|preparation_time|best_model_checkpoint")
        return {k: _without_clock(v) for k, v in value.items() if not clock.search(k)}
    return [_without_clock(one) for one in value] if isinstance(value, list) else value


def _values(one: Any, other: Any, path: str = "") -> str:
    """The first place in which two values of JSON differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*other, *(key for key in one if key not in other)]:
            if key not in one or key not in other:
                return f"{path}{key} is {'missing' if key not in one else 'new'}"
            if found := _values(one[key], other[key], f"{path}{key}."):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list):
        for number, (left, right) in enumerate(zip(one, other, strict=False)):
            if found := _values(left, right, f"{path}{number}."):
                return found
        return "" if len(one) == len(other) else f"{path}: {len(one)} for {len(other)}"
    # as text: -0.0 and NaN are what they are
    return "" if repr(one) == repr(other) else f"{path}: {one!r} for {other!r}"[:300]
