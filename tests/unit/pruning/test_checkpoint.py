"""A pruner's state as a file: what goes in comes out, and damage is named."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from helpers.pruning import projected, same, snapshot, stopped, unchanged
from sentei.methods import known
from sentei.pruning import checkpoint
from sentei.pruning.saved import first_difference
from sentei.serialization import override, to_dict
from sentei.testing import STEPS, Training

METHODS = pytest.mark.parametrize("method", known(), ids=lambda method: method.name)


def small(method):
    recipe = method.build(0.7)
    data = to_dict(recipe)
    settings = {"schedule.every": 2, "score.window": 2, "schedule.stages": 10}
    present = {k: v for k, v in settings.items() if k.split(".")[1] in data[k.split(".")[0]]}
    return override(recipe, [f"{path}={value}" for path, value in present.items()])


def test_nested_tensors_and_plain_values(tmp_path):
    state = {
        "step": 3,
        "deep": {"a.b": {"x": torch.arange(3.0), "y": torch.ones(2, 2, dtype=torch.bool)}},
        "flat": {"z": torch.tensor(1.5, dtype=torch.float64)},
        "list": [{"pruned": 1, "threshold": None}],
        "empty": {},
    }
    checkpoint.write(state, tmp_path / "s")
    assert same(checkpoint.read(tmp_path / "s"), state)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "r.a.b was [1], is [2]"),
        ({"a": 1}, {}, "r.a was 1, is None"),
        ({}, {"a": 1}, "r.a was None, is 1"),
    ],
)
def test_first_difference(old, new, difference):
    assert first_difference(old, new, "r") == difference


@METHODS
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_every_method_resumes_from_its_file(method, tmp_path):
    recipe, stop = small(method), 23
    whole = Training(recipe).run()
    first = Training(recipe).run(stop)
    first.pruner.save(tmp_path / "p")
    before = copy.deepcopy(first.pruner.state_dict())
    assert same(checkpoint.read(tmp_path / "p"), before)
    second = Training(recipe)
    second.gradients()  # a forward pass before the state is there
    second.optimizer.zero_grad()
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load(tmp_path / "p")
    second.count = stop
    second.run(STEPS - stop)
    assert same(second.weights(), whole.weights())
    assert second.finish() == whole.finish()


def rewrite(path, *, metadata=None, drop=""):
    """Write a file again without one of its tensors, or as something else; the keys it had."""
    with safe_open(path, "pt") as file:
        metadata, keys = metadata or file.metadata(), list(file.keys())
        tensors = {key: file.get_tensor(key) for key in keys if key != drop}
    save_file(tensors, path, metadata=metadata)
    return keys


@METHODS
def test_a_file_without_one_of_its_tensors_is_refused_whole(method, tmp_path):
    run = Training(small(method)).run(9)
    run.pruner.save(tmp_path / "p")
    content = (tmp_path / "p").read_bytes()
    with safe_open(tmp_path / "p", "pt") as file:
        keys = [key for key in file.keys() if "blocks.0" in key or key.startswith("budget")]
    assert keys
    run.run(2)
    before = copy.deepcopy(run.pruner.state_dict())
    for key in keys:
        (tmp_path / "p").write_bytes(content)
        assert key in rewrite(tmp_path / "p", drop=key)
        with pytest.raises(ValueError):
            run.pruner.load(tmp_path / "p")
        assert same(run.pruner.state_dict(), before), key


@pytest.mark.parametrize(
    "plain",
    ["{}", "{", "[]", "3", json.dumps({"format": 2})],
)
def test_a_file_of_something_else(plain, tmp_path):
    run = Training(small(known("leap")[0])).run(5)
    save_file({"masks:x": torch.ones(1)}, tmp_path / "p", metadata={"sentei": plain})
    with pytest.raises(ValueError, match="p"):
        run.pruner.load(tmp_path / "p")
    run.step()


@projected
def test_file_resumes_bit_for_bit(recipe, tmp_path):
    whole = Training(recipe).run()
    first, _ = stopped(recipe, 17)
    first.pruner.save(tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    second = Training(recipe)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load(tmp_path / "p.safetensors")
    assert unchanged(second.pruner, snapshot(first.pruner))
    second.count = 17
    second.run(STEPS - 17)
    assert same(second.weights(), whole.weights())
    assert second.pruner.updates == whole.pruner.updates
    assert second.finish() == whole.finish()


@pytest.fixture
def saved(tmp_path):
    training, _ = stopped()
    path = tmp_path / "pruner.safetensors"
    training.pruner.save(path)
    return path, training.pruner


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:20])


def other_bytes(path):
    path.write_bytes(b"PK\x03\x04 not a safetensors file")


def no_metadata(path):
    save_file({"x": torch.ones(1)}, path)


def other_metadata(path):
    rewrite(path, metadata={"sentei": "{}"})


def no_json(path):
    rewrite(path, metadata={"sentei": "{"})


def without_a_tensor(path):
    rewrite(path, drop="memory:blocks.3.weight:importance")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        truncate,
        cut_header,
        other_bytes,
        no_metadata,
        other_metadata,
        no_json,
        without_a_tensor,
    ],
)
def test_damaged_files(saved, damage):
    path, pruner = saved
    damage(path)
    before = snapshot(pruner)
    with pytest.raises(ValueError, match="state"):
        pruner.load(path)
    assert unchanged(pruner, before)


SAVE_ON_A_FULL_DISK = """
import resource, sys
from sentei.testing import Training
import sentei
training = Training(sentei.platon(0.7, window=2, every=2)).run(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    training.pruner.save(sys.argv[1])
except OSError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_failing_save_leaves_the_old_file(saved):
    path, pruner = saved
    content, before = path.read_bytes(), snapshot(pruner)
    assert len(content) > 4096
    done = subprocess.run(
        [sys.executable, "-c", SAVE_ON_A_FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert done.returncode == 1 and f"refused: {path}: cannot write" in done.stderr
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    pruner.load(path)
    assert unchanged(pruner, before)


def test_save_where_there_is_no_folder(saved, tmp_path):
    with pytest.raises(OSError, match="missing/p"):
        saved[1].save(tmp_path / "missing" / "p")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint.write({"step": 3, "a": {"x": torch.ones(1)}}, "~/s")
    assert same(checkpoint.read("~/s"), checkpoint.read(tmp_path / "s"))
