"""Whose weights they are: the model's own at every step, and one pruner's at a time."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import distributed, nn
from torch.nn.utils.prune import l1_unstructured

import sentei
from helpers.pruning import LATENT, MAGNITUDE, PLATON
from sentei.pruning.ownership import Places
from sentei.testing import STEPS, Training

RECIPES = {
    "magnitude": MAGNITUDE,
    "platon": PLATON,
    "proximal": sentei.proximal(0.7, every=2),
    "random": sentei.random(0.7, every=2),
    "idle": sentei.magnitude(0.0, every=2),
    "movement": LATENT["movement"],
    "l0": LATENT["l0"],
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def assign(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def new_parameter(model):
    model.blocks[0].weight = nn.Parameter(model.blocks[0].weight.detach().clone())


def new_module(model):
    model.blocks[0] = copy.deepcopy(model.blocks[0])


def new_list(model):
    model.blocks = nn.ModuleList(copy.deepcopy(block) for block in model.blocks)


def wrapped_module(model):
    model.blocks[0] = nn.Sequential(model.blocks[0])


def tied(model):
    model.blocks[0].weight = model.blocks[1].weight


def weight_norm(model):
    nn.utils.parametrizations.weight_norm(model.blocks[0])


def parametrize(model):
    nn.utils.parametrize.register_parametrization(model.blocks[0], "weight", nn.Identity())


def torch_prune(model):
    l1_unstructured(model.blocks[0], "weight", 0.1)


def removed(model):
    del model.blocks[0].weight
    model.blocks[0].weight = torch.zeros(16, 16)


EXCHANGES = [
    assign,
    new_parameter,
    new_module,
    new_list,
    wrapped_module,
    tied,
    weight_norm,
    parametrize,
    torch_prune,
    removed,
]
exchanges = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda f: f.__name__)
REFUSED = r"^blocks\.0\.weight is no longer the model's own tensor: .* after the pruner was made"


@recipes
@exchanges
@pytest.mark.parametrize("steps", [0, 5])
def test_exchanged_weights_are_refused_at_the_next_step(recipe, exchange, steps):
    training = Training(recipe).run(steps)
    exchange(training.model)
    with pytest.raises(ValueError, match=REFUSED):
        training.optimizer.step()
    assert training.pruner.step == steps


@exchanges
def test_exchanged_weights_are_refused_wherever_they_are_counted(exchange):
    training = Training(MAGNITUDE).run()
    exchange(training.model)
    with pytest.raises(ValueError, match=REFUSED):
        training.finish()
    with pytest.raises(ValueError, match=REFUSED):
        _ = training.pruner.sparsity
    training.pruner.detach()
    with pytest.raises(ValueError, match=REFUSED):
        training.pruner.attach(training.optimizer)


def test_weights_exchanged_before_attaching_are_said_to_be_so():
    """And not to be missing in an optimizer that holds the model's new ones."""
    training = Training(None)
    pruner = sentei.Pruner(training.model, MAGNITUDE, total_steps=STEPS)
    assign(training.model)
    with pytest.raises(ValueError, match=REFUSED):
        pruner.attach(torch.optim.SGD(training.model.parameters()))


@pytest.fixture
def one_process():
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_model_that_is_sharded_later_is_said_to_be_so():
    from torch.distributed.fsdp import fully_shard

    training = Training(MAGNITUDE).run(5)
    fully_shard(training.model, mesh=distributed.init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match=r"was sharded \(fully_shard\) after the pruner was made"):
        training.optimizer.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.to(torch.bfloat16), "is torch.bfloat16, and was torch.float32 .*cast"),
        (lambda model: model.double(), "is torch.float64, and was torch.float32"),
        (lambda model: resize(model), r"is \(8, 16\), and was \(16, 16\)"),
        (lambda model: transpose(model), "is no longer contiguous"),
    ],
    ids=["bf16", "double", "resized", "transposed"],
)
@recipes
def test_weights_of_another_form_are_refused_by_name(recipe, change, message):
    training = Training(recipe).run(5)
    change(training.model)
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(ValueError, match=rf"^blocks\.0\.weight {message}"):
        training.optimizer.step()


def resize(model):
    model.blocks[0].weight.data = torch.ones(8, 16)


def transpose(model):
    model.blocks[0].weight.data = model.blocks[0].weight.data.t()


@recipes
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_other_storage_is_fine(recipe):
    """Flattened and tied storage, and optimizers that write ``p.data = new``."""
    training = Training(recipe)
    for _ in range(STEPS):
        training.step()
        if not recipe.mask.latent:
            for parameter in training.model.parameters():
                parameter.data = parameter.data.clone()
    assert training.finish().pruned == round(recipe.schedule.sparsity * training.pruner.prunable)


def test_looking_costs_microseconds():
    """Identities only: no tensor is read."""
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    sites = sentei.parts.Scope(include=("*.weight",))
    with pytest.raises(ValueError, match="meta"):
        sites.resolve(model)
    model = model.to_empty(device="cpu")
    places = Places(model, sites.resolve(model).sites)
    assert [leaf for _, leaf, _ in places.owners] == ["weight"] * 9
    with torch.autograd.profiler.profile() as profile:
        places.check()
    assert not list(profile.function_events)


# One pruner acts on a weight.


def again(training, recipe, optimizer=None):
    """What a cell that is run twice does."""
    training.optimizer = optimizer or training.optimizer
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    training.count = 0


@recipes
@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")
def test_the_last_pruner_that_is_attached_acts_alone(recipe, steps):
    training = Training(recipe).run(steps)
    first = training.pruner
    with pytest.warns(sentei.SenteiWarning, match=f"another pruner .* at step {steps} of 40"):
        again(training, recipe)
    assert not first.attached and training.pruner.attached
    report = training.run().finish()
    zeros = sum(int((block.weight == 0).sum()) for block in training.model.blocks)
    assert report.pruned == zeros == round(recipe.schedule.sparsity * 1024)
    assert first.step == steps
    with pytest.raises(ValueError, match="another pruner has been attached to these weights"):
        first.finish()


def test_one_with_a_part_of_the_weights_is_taken_over_too():
    training = Training(MAGNITUDE).run(5)
    first = training.pruner
    part = sentei.magnitude(0.5, every=2, scope={"include": ["blocks.0.*weight"]})
    with pytest.warns(sentei.SenteiWarning, match="another pruner"):
        again(training, part)
    assert not first.attached
    assert training.run().finish().pruned == 128


def test_pruners_of_different_weights_are_two():
    training = Training(sentei.magnitude(0.5, every=2, scope={"include": ["blocks.0.weight"]}))
    scope = {"include": ["blocks.1.weight"]}
    other = sentei.Pruner(
        training.model, sentei.magnitude(0.25, every=2, scope=scope), total_steps=STEPS
    )
    other.attach(training.optimizer)
    training.run()
    assert (training.finish().pruned, other.finish().pruned) == (128, 64)


def test_an_abandoned_pruner_is_taken_over_without_a_word():
    """Its optimizer is gone, and with it what made it act."""
    training = Training(PLATON).run(7)
    first = training.pruner
    training.optimizer = None
    gc.collect()
    again(training, PLATON, torch.optim.AdamW(training.model.parameters(), lr=1e-2))
    assert training.run().finish().pruned == round(0.7 * 1024)
    assert not first.attached


def test_a_pruner_that_nobody_keeps_lives_with_its_optimizer():
    """And hands over to the next one."""
    training = Training(PLATON)
    training.pruner = None
    gc.collect()
    with pytest.warns(sentei.SenteiWarning, match="another pruner"):
        again(training, PLATON)
    assert training.run().finish().pruned == round(0.7 * 1024)


def test_a_pruner_goes_on_with_another_optimizer_where_its_own_is_gone():
    training = Training(PLATON).run(7)
    training.optimizer = None
    gc.collect()
    training.optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-2)
    training.pruner.attach(training.optimizer)
    training.run(STEPS - 7)
    assert training.pruner.step == STEPS and training.finish().pruned == round(0.7 * 1024)


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_a_loop_with_a_retry():
    """It breaks off in the middle of everything, and begins again with the same model."""
    training = Training(PLATON)

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for attempt in range(3):
        again(training, PLATON, torch.optim.AdamW(training.model.parameters(), lr=1e-2))
        hook = training.model.register_forward_hook(out_of_memory)
        if attempt == 2:
            hook.remove()
        else:
            with pytest.raises(torch.OutOfMemoryError):
                training.run()
            hook.remove()
            training.run(5)
    assert training.run().finish().pruned == round(0.7 * 1024)
