"""Optimizers in optimizers, and those whose step is not what moves the weights."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

import sentei
from helpers.pruning import LATENT, MAGNITUDE, PLATON
from sentei.testing import STEPS, Training

RECIPES = {
    "magnitude": MAGNITUDE,
    "platon": PLATON,
    "proximal": sentei.proximal(0.7, coefficient=1e-5, every=2),
    "movement": LATENT["movement"],
    "l0": LATENT["l0"],
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
PRUNED = round(0.7 * 1024)
pytestmark = pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")


def adam(model):
    return AdamW(model.parameters(), lr=1e-2)


class Averaging:
    """Lookahead: every other step, half of the way back to where the weights were."""

    def average(self):
        self.count = getattr(self, "count", 0) + 1
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            slow = self.slow.setdefault(parameter, parameter.data.clone())
            if self.count % 2 == 0:
                slow.add_(parameter.data - slow, alpha=0.5)
                parameter.data.copy_(slow)


class Lookahead(Optimizer, Averaging):
    """One that is an optimizer by the book."""

    def __init__(self, optimizer):
        super().__init__(optimizer.param_groups, {})
        self.optimizer, self.slow = optimizer, {}
        self.param_groups = optimizer.param_groups

    def step(self, closure=None):
        self.optimizer.step(closure)
        self.average()


class SilentLookahead(Optimizer, Averaging):
    """As published ones: without ``super().__init__``, so that torch runs no hooks."""

    def __init__(self, optimizer):
        self._base_optimizer, self.slow = optimizer, {}
        self.param_groups, self.defaults = optimizer.param_groups, optimizer.defaults

    def step(self, closure=None):
        self._base_optimizer.step(closure)
        self.average()

    def zero_grad(self, set_to_none=True):
        self._base_optimizer.zero_grad(set_to_none)


def train(recipe, make, steps=STEPS):
    training = Training(None)
    training.optimizer = make(training.model)
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    return training.run(steps)


def zeros(model):
    return sum(int((block.weight == 0).sum()) for block in model.blocks)


@recipes
def test_what_contains_an_optimizer_is_seen_as_a_whole(recipe):
    training = train(recipe, lambda model: Lookahead(adam(model)))
    assert training.pruner.step == STEPS
    assert zeros(training.model) == PRUNED
    assert training.finish().pruned == PRUNED


@pytest.mark.parametrize("recipe", [MAGNITUDE, PLATON], ids=["magnitude", "platon"])
def test_what_is_written_after_the_steps_that_are_seen_is_said(recipe):
    with pytest.warns(sentei.SenteiWarning, match="attached to the AdamW in SilentLookahead"):
        training = train(recipe, lambda model: SilentLookahead(adam(model)), steps=40)
    assert training.pruner.step == 40
    assert zeros(training.model) < PRUNED
    with pytest.warns(sentei.SenteiWarning, match="written to after the last step"):
        report = training.finish()
    assert report.pruned == zeros(training.model) == PRUNED


class Both:
    """Two optimizers that step together; no torch optimizer itself."""

    def __init__(self, *optimizers):
        self.optimizers = list(optimizers)

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def by_kind(model, first):
    """Matrices of the blocks in one optimizer, all else in another."""
    blocks = [block.weight for block in model.blocks]
    known = {id(weight) for weight in blocks}
    rest = [p for p in model.parameters() if id(p) not in known]
    pair = [SGD(blocks, lr=1e-2), AdamW(rest, lr=1e-2)]
    return Both(*(pair if first else reversed(pair)))


@recipes
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.filterwarnings("ignore:attached to the SGD in Both:sentei.SenteiWarning")
def test_of_several_the_one_with_all_prunable_weights_is_attached_to(recipe, first):
    training = train(recipe, lambda model: by_kind(model, first))
    assert training.pruner.step == STEPS
    assert training.finish().pruned == zeros(training.model) == PRUNED


def test_weights_in_several_are_refused():
    def halves(model):
        two = model.blocks[:2], model.blocks[2:]
        return Both(*(SGD(half.parameters(), lr=0.1) for half in two))

    with pytest.raises(ValueError, match="no other of the 2 optimizers in Both holds all prunable"):
        train(MAGNITUDE, halves)


class Derived(AdamW):
    """A step that calls its parent's: torch may run the hooks at both."""

    def step(self, closure=None):
        return super().step(closure)


@recipes
def test_a_step_that_calls_its_parents_is_one(recipe):
    AdamW([torch.nn.Parameter(torch.ones(1))])  # from now on the parent's step has hooks, too
    training = train(recipe, lambda model: Derived(model.parameters(), lr=1e-2), steps=10)
    assert training.pruner.step == 10
    plain = train(recipe, adam, steps=10)
    assert all(torch.equal(w, plain.weights()[name]) for name, w in training.weights().items())


def test_and_is_one_after_a_step_that_broke_off():
    training = train(PLATON, lambda model: Derived(model.parameters(), lr=1e-2), steps=10)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = training.optimizer.register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        training.optimizer.step()
    hook.remove()
    training.run(STEPS - 10)
    assert training.pruner.step == STEPS and training.finish().pruned == PRUNED


class SAM(Optimizer):
    """Steps in two, neither of which is called ``step``."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.base = AdamW(self.param_groups, lr=1e-2)

    @torch.no_grad()
    def first_step(self):
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            parameter.add_(parameter.grad, alpha=1e-3)

    def step(self, closure=None):
        raise AssertionError("two steps are called instead")


class Overwritten(SGD):
    """Its ``step`` was replaced by somebody's own."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1e-2)
        self.step = self.plain

    @torch.no_grad()
    def plain(self, closure=None):
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-1e-2)


@pytest.mark.parametrize("recipe", [MAGNITUDE, PLATON], ids=["magnitude", "platon"])
def test_steps_that_nobody_sees_are_said_in_the_first(recipe):
    training = train(recipe, lambda model: Overwritten(model.parameters()), steps=3)
    with pytest.raises(ValueError, match=r"moves, and no step of the optimizer .* was seen"):
        training.step()

    training = train(recipe, lambda model: SAM(model.parameters()), steps=0)
    with pytest.raises(ValueError, match=r"first_step, second_step"):
        for _ in range(4):
            training.gradients()
            training.optimizer.first_step()


def test_where_steps_are_seen_nobody_looks_at_gradients():
    training = train(MAGNITUDE, adam, steps=0)
    weight = training.model.blocks[0].weight
    for _ in range(6):  # accumulated
        training.gradients()
    for _ in range(2):  # loaded, and loaded again
        training.model.load_state_dict(training.model.state_dict())
        training.gradients()
    training.run(2)
    assert not weight._post_accumulate_grad_hooks


class ScheduleFree(SGD):
    """SGD of Defazio et al. 2024: gradients at y, evaluated at the average x, z in the state."""

    beta, training_mode = 0.9, True

    def move(self, weight):
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            if "z" in self.state[parameter]:
                parameter.data.lerp_(self.state[parameter]["z"], weight)

    def eval(self):
        if self.training_mode:
            self.move(1 - 1 / self.beta)
            self.training_mode = False

    def train(self):
        if not self.training_mode:
            self.move(1 - self.beta)
            self.training_mode = True

    @torch.no_grad()
    def step(self, closure=None):
        self.k = getattr(self, "k", 0) + 1
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            z = self.state[parameter].setdefault("z", parameter.data.clone())
            parameter.data.lerp_(z, 1 / self.k)
            parameter.data.add_(parameter.grad, alpha=1e-2 * (self.beta * (1 - 1 / self.k) - 1))
            z.sub_(parameter.grad, alpha=1e-2)


@pytest.mark.parametrize("recipe", [MAGNITUDE, PLATON], ids=["magnitude", "platon"])
def test_a_schedule_free_optimizer_ends_exact(recipe):
    training = train(recipe, lambda model: ScheduleFree(model.parameters(), lr=1e-2))
    training.optimizer.eval()
    assert zeros(training.model) < PRUNED
    with pytest.warns(sentei.SenteiWarning, match="schedule-free"):
        report = training.finish()
    assert report.pruned == zeros(training.model) == PRUNED


def test_a_schedule_free_optimizer_is_refused_where_it_would_be_undone():
    with pytest.raises(ValueError, match=r"moves weights as it changes between train\(\) and eval"):
        train(LATENT["movement"], lambda model: ScheduleFree(model.parameters(), lr=1e-2))


class Zeroing(SGD):
    """Its step ends with zero gradients."""

    def __init__(self, parameters, lr, to_none=False):
        super().__init__(parameters, lr=lr)
        self.to_none = to_none

    def step(self, closure=None):
        super().step(closure)
        self.zero_grad(set_to_none=self.to_none)


def test_scores_that_are_all_zero_are_said_at_the_first_decision():
    said = r"at step 6 every score is 0.*score\.iterate='old'"
    training = train(PLATON, lambda model: Zeroing(model.parameters(), 1e-2), steps=0)
    with pytest.warns(sentei.SenteiWarning, match=said) as warned:
        for training.count in range(12):
            training.gradients()
            training.optimizer.step()
    assert len(warned) == 1
    with pytest.raises(ValueError, match="zero gradients after the optimizer's step"):
        train(PLATON, lambda model: Zeroing(model.parameters(), 1e-2, to_none=True))
    old = sentei.platon(0.7, window=2, every=2, iterate="old")
    training = train(old, lambda model: Zeroing(model.parameters(), 1e-2))
    assert training.finish().pruned == PRUNED
