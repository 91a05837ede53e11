"""Sites in buffers, as on a GPU: the masks of a CPU, few launches, and nothing that waits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sentei
from helpers.pruning import LATENT, same, snapshot
from helpers.waits import Device
from sentei import serialization
from sentei.methods import known
from sentei.parts.patterns import Pattern
from sentei.pruning import buffers
from sentei.recipe import Recipe
from sentei.testing import Training

STEPS = 20


@pytest.fixture
def in_buffers(monkeypatch):
    """Everything lies in buffers, of two sites at most, though there is only a CPU."""
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    monkeypatch.setattr(buffers, "LIMIT", 600)


def trained(recipe: Recipe, dtype: torch.dtype = torch.float32):
    """Masks of every step, weights, records and state of a training."""
    training = Training(recipe, dtype=dtype, steps=STEPS)
    assert training.pruner is not None
    masks = []
    for _ in range(STEPS):
        training.step()
        masks.append(copy.deepcopy(training.pruner.masks))
    weights = dict(training.model.state_dict())
    records = [record.model_dump() for record in training.pruner.updates]
    return masks, weights, records, snapshot(training.pruner)["memory"], training.pruner.finish()


def short(method, pattern: str) -> Recipe:
    """A recipe of a method, whose decisions begin early enough."""
    sparsity = 0.5 if pattern == "2:4" else 0.7
    options = {"stages": 4} if method.name == "knowledge_aware" else {}
    recipe = serialization.override(method.build(sparsity, **options), [f"pattern={pattern}"])
    windows = getattr(recipe.score, "window", 1) > 1
    return serialization.override(recipe, ["score.window=2"]) if windows else recipe


def fits(method, pattern: str) -> bool:
    try:
        short(method, pattern)
    except ValueError:
        return False
    return True


CASES = [
    (method, pattern)
    for method in known()
    for pattern in ("unstructured", "2:4", "4x4", "row")
    if fits(method, pattern)
]


@pytest.mark.parametrize(
    ("method", "pattern"), CASES, ids=[f"{method.name}-{pattern}" for method, pattern in CASES]
)
@pytest.mark.filterwarnings("ignore:the model has")  # a proximal penalty shrinks a weight to 0
def test_masks_are_those_of_a_cpu(method, pattern, monkeypatch):
    recipe = short(method, pattern)
    expected = trained(recipe)
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    monkeypatch.setattr(buffers, "LIMIT", 600)
    masks, weights, records, memory, report = trained(recipe)
    assert all(same(one, other) for one, other in zip(masks, expected[0], strict=True))
    assert same(weights, expected[1])
    assert records == expected[2]
    assert same(memory, expected[3])
    assert report == expected[4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "recipe", [sentei.platon(0.7, window=2), LATENT["movement"]], ids=["platon", "movement"]
)
def test_so_are_those_of_other_precisions(recipe, dtype, monkeypatch):
    expected = trained(recipe, dtype)
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    masks, weights, records, *_ = trained(recipe, dtype)
    assert all(same(one, other) for one, other in zip(masks, expected[0], strict=True))
    assert same(weights, expected[1])
    assert records == expected[2]


class Stack(nn.Module):
    """72 matrices, as many as BERT-base prunes, of its two sizes in small."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(8, 8)] * 4 + [(32, 8), (8, 32)]
        self.layers = nn.ModuleList(
            nn.ParameterList(torch.randn(shape) / 8 for shape in shapes) for _ in range(12)
        )

    def loss(self) -> torch.Tensor:
        x = torch.randn(4, 8)
        for layer in self.layers:
            y = x
            for weight in layer:
                y = torch.tanh(y @ weight.T)
            x = x + y
        return x.square().mean()


EVERY_STEP = ["schedule.warmup=0.001", "schedule.cooldown=0.99", "schedule.cooldown_every=1"]


def counted(recipe: Recipe, settings: list[str], steps: int = 13) -> list[tuple[int, int, bool]]:
    """Launches, waits and whether a decision was made, of every step after the first few."""
    torch.manual_seed(0)
    model = Stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, foreach=True)
    recipe = serialization.override(recipe, ["scope.include=['layers.*']", *settings])
    pruner = sentei.Pruner(model, recipe, total_steps=1000, examples=100)
    pruner.attach(optimizer)
    state, found = pruner._state, []
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters()]
    kept = [t for one in state.sites.values() for t in (one.keep, *one.tensors.values())]
    with Device([*model.parameters(), *gradients, *kept]) as device:
        for _ in range(steps):
            with torch.enable_grad():
                gradients_now = torch.autograd.grad(model.loss(), list(model.parameters()))
            torch._foreach_copy_(gradients, list(gradients_now))
            before = device.launches.total(), device.waits.total(), state.decided
            if recipe.mask.stochastic:
                pruner._steps.before_forward(model, ())
            optimizer.step()
            launches, waits = (now.total() for now in (device.launches, device.waits))
            decided = state.decided != before[2]
            found.append((launches - before[0] - 1, waits - before[1], decided))  # 1: the SGD
    return found[3:]


BUSY = {
    "platon": (sentei.platon(0.9), [*EVERY_STEP, "score.window=1"]),
    "platon, windows": (sentei.platon(0.9), EVERY_STEP),
    "movement": (sentei.movement(0.9), EVERY_STEP),
    "leap": (sentei.leap(0.9), []),
    "soft_movement": (sentei.soft_movement(0.9), EVERY_STEP),
    "magnitude": (sentei.magnitude(0.9), EVERY_STEP),
    "mgpp": (sentei.mgpp(0.9, reconstruction=None), []),
}


@pytest.mark.parametrize(("recipe", "settings"), BUSY.values(), ids=BUSY.keys())
def test_a_step_launches_at_most_200_kernels_and_a_decision_waits_once(
    recipe, settings, monkeypatch
):
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    steps = counted(recipe, settings)
    assert max(launches for launches, _, _ in steps) <= 200
    for before, (_, waits, decided) in zip([None, *steps], steps, strict=False):
        to_record = decided or (before is not None and before[2])
        assert waits <= 1 and (to_record or before is None or not waits), steps


def test_launches_grow_with_buffers(monkeypatch):
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    few = max(launches for launches, _, _ in counted(*BUSY["movement"]))
    monkeypatch.setattr(buffers, "LIMIT", 12 * 256)
    more = max(launches for launches, _, _ in counted(*BUSY["movement"]))
    assert 0 < more - few < 4 * 60  # from 2 buffers to 4 and 2


def test_pieces_on_a_device_wait_for_every_matrix(monkeypatch):
    """What is counted can be seen: so it was before there were buffers."""
    monkeypatch.setattr("sentei.pruning.cut._on_cpu", lambda piece: False)
    launches, waits, _ = max(counted(*BUSY["movement"]))
    assert waits >= 3 * 72 and launches >= 10 * 72


@pytest.mark.parametrize("recipe", LATENT.values(), ids=LATENT.keys())
def test_a_state_goes_from_pieces_to_buffers_and_goes_on(recipe, monkeypatch):
    whole = Training(recipe).run()
    half = Training(recipe).run(20)
    saved, weights = snapshot(half.pruner), copy.deepcopy(half.model.state_dict())
    optimizer = copy.deepcopy(half.optimizer.state_dict())
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    resumed = Training(recipe)
    assert resumed.pruner is not None and resumed.pruner._state.buffers
    resumed.model.load_state_dict(weights)
    resumed.optimizer.load_state_dict(optimizer)
    resumed.pruner.load_state_dict(saved)
    resumed.count = 20
    resumed.run(20)
    assert same(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))


def test_a_file_of_rows_is_read(in_buffers, tmp_path):
    training = Training(LATENT["movement"]).run(20)
    training.pruner.save(tmp_path / "state.safetensors")
    other = Training(LATENT["movement"])
    other.model.load_state_dict(training.model.state_dict())
    other.pruner.load(tmp_path / "state.safetensors")
    assert same(other.pruner.state_dict(), training.pruner.state_dict())


@pytest.mark.parametrize(
    "recipe", [sentei.platon(0.7, window=2), LATENT["movement"]], ids=["platon", "movement"]
)
def test_nan_ends_the_run_a_step_later_and_prunes_nothing(recipe, in_buffers):
    training = Training(recipe).run(30)
    before = training.pruner.updates[-1]
    training.model.blocks[2].weight.data[0, 0] = torch.nan
    for state in training.pruner._state.sites.values():
        if state.latent is not None:
            state.latent[0, 0] = torch.nan
        for memory in state.memory.values():
            memory[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="cannot rank the weights at step 3"):
        training.run(5)
    assert training.pruner.updates[-1].step <= before.step + 2


def test_what_is_pruned_is_known_when_somebody_asks(in_buffers):
    training = Training(sentei.platon(0.7, window=2, every=2)).run(20)
    assert training.pruner._state.pending is not None
    assert training.pruner.updates[-1].step == training.pruner._state.decided
    assert training.pruner.pruned == sum(int((~m).sum()) for m in training.pruner.masks.values())


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_pruning_at_once(pattern, monkeypatch):
    def pruned():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        scope = {"include": ["*.weight"]}
        recipe = sentei.wanda(0.5, scope=scope, pattern=Pattern.model_validate(pattern))
        report = sentei.one_shot(model, recipe, [torch.randn(32, 8)])
        return dict(model.state_dict()), report

    expected = pruned()
    monkeypatch.setattr(buffers, "DEVICES", {"cpu"})
    weights, report = pruned()
    assert same(weights, expected[0]) and report == expected[1]
