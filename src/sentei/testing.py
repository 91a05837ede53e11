"""``check_method``: a public conformance suite that every method, ours or a third party's, passes.

It trains a small network, so it takes seconds and needs nothing but torch.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from sentei import serialization
from sentei.messages import SenteiWarning
from sentei.methods import Method, find
from sentei.pruning.inputs import observed_bytes
from sentei.pruning.pruner import Pruner
from sentei.recipe import Recipe
from sentei.records import PruningReport

STEPS = 40
"""Optimizer steps of a :class:`Training`."""


class Network(nn.Module):
    """Four blocks of linear layers between an input and an output layer outside the scope."""

    def __init__(self, width: int = 16, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.input = nn.Linear(8, width, dtype=dtype)
        self.blocks = nn.ModuleList(nn.Linear(width, width, dtype=dtype) for _ in range(4))
        self.output = nn.Linear(width, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (batch, 1) for inputs (batch, 8)."""
        x = self.input(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        output: Tensor = self.output(x)
        return output


@torch.no_grad()
def make_sparse_(model: nn.Module, recipe: Recipe) -> None:
    """Zero the smallest weights of a model that ``recipe`` expects to be sparse already.

    That is so where the schedule takes its sparsity from the model (``schedule.from_model``), which
    gets the least that it asks for. For other recipes nothing is done.
    """
    if not recipe.schedule.from_model:
        return
    sites = recipe.scope.resolve(model).sites
    weights = torch.cat([site.parameter.view(-1) for site in sites]).abs()
    order = weights.argsort(stable=True)
    keep = torch.ones_like(weights, dtype=torch.bool)
    keep[order[: round(weights.numel() * (recipe.schedule.sparsity or 0))]] = False
    parts = keep.split([site.parameter.numel() for site in sites])
    for site, part in zip(sites, parts, strict=True):
        site.parameter.mul_(part.view_as(site.parameter))


class Training:
    """A deterministic training run, one :meth:`step` at a time.

    Args:
        recipe: What to prune with; None trains dense. Where it takes the sparsity from the model,
            the model is made as sparse first.
        micro_batches: Into how many parts each batch of 8 is split; their gradients accumulate.
        dtype: Of weights and data.
        steps: Optimizer steps the pruner is told of.
        state_dtype: In which the pruner keeps running means.
    """

    def __init__(
        self,
        recipe: Recipe | None,
        *,
        micro_batches: int = 1,
        dtype: torch.dtype = torch.float32,
        steps: int = STEPS,
        state_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype, self.micro_batches = dtype, micro_batches
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = Network(dtype=dtype)
        self.inputs = torch.randn(steps, 8, 8, generator=generator, dtype=dtype)
        self.targets = self.inputs.square().mean(-1, keepdim=True)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.pruner = None
        if recipe:
            make_sparse_(self.model, recipe)
            examples = self.inputs.shape[0] * self.inputs.shape[1]
            self.pruner = Pruner(
                self.model, recipe, total_steps=steps, examples=examples, state_dtype=state_dtype
            )
            self.pruner.attach(self.optimizer)
        self.count = 0

    def gradients(self) -> None:
        """Accumulate the gradients of the next batch."""
        batch = zip(
            self.inputs[self.count].chunk(self.micro_batches),
            self.targets[self.count].chunk(self.micro_batches),
            strict=True,
        )
        for x, y in batch:
            (nn.functional.mse_loss(self.model(x), y) / self.micro_batches).backward()

    def step(self) -> None:
        """Train on the next batch."""
        self.gradients()
        with warnings.catch_warnings():
            # So short a run is no measure of how near a learned sparsity comes to its target.
            warnings.simplefilter("ignore", SenteiWarning)
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1

    def run(self, steps: int = STEPS) -> Training:
        """Train on the next ``steps`` batches."""
        for _ in range(steps):
            self.step()
        return self

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def finish(self) -> PruningReport:
        """The pruner's report."""
        assert self.pruner is not None
        return self.pruner.finish()


def check_method(method: str | Method) -> None:
    """Check that a method keeps every promise the library makes. No method is excused.

    Args:
        method: A known method's name, or the method itself.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    method = find(method) if isinstance(method, str) else method
    for check in CHECKS:
        check(method)


def _small(method: Method, sparsity: float = 0.7) -> Recipe:
    """The method's recipe, fitted to a run of ``STEPS`` steps."""
    settings = {
        "schedule.every": 2,
        "schedule.stages": 10,
        "score.window": 2,
        "score.optimizer.lr": 0.5,
    }
    recipe = method.build(sparsity).model_copy(update={"distill": None})  # the pruner's part
    for path, value in settings.items():
        place: object = serialization.to_dict(recipe)
        for key in path.split("."):
            place = place.get(key) if isinstance(place, dict) else None
        if place is not None:
            recipe = serialization.override(recipe, [f"{path}={value}"])
    return recipe


def _expect(holds: bool, method: Method, promise: str) -> None:
    if not holds:
        raise AssertionError(f"{method.name}: {promise}")


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_zero_sparsity(method: Method) -> None:
    """Sparsity 0 trains exactly as if nothing were attached."""
    sparse, dense = Training(_small(method, 0.0)).run(), Training(None).run()
    _expect(_same(sparse.weights(), dense.weights()), method, "sparsity 0 must change nothing")


def _exact(recipe: Recipe, training: Training, sparsity: float) -> int:
    """Weights in round(n s) units, which are of one size here."""
    groups = recipe.lay_units(training.model)[1]
    return round(sum(group.count for group in groups) * sparsity) * groups[0].weights


def check_counts(method: Method) -> None:
    """Every decision prunes what it records, round(n s) units where it has settled, and only
    inside the scope. Where the sparsity is the model's, one decision is enough to keep it.
    """
    recipe = _small(method)
    training = Training(recipe)
    pruner = training.pruner
    assert pruner is not None
    seen = 0
    for step in range(1, STEPS + 1):
        training.step()
        if len(pruner.updates) == seen:
            continue
        seen += 1
        update = pruner.updates[-1]
        target = recipe.schedule.at(step, STEPS)
        exact = _exact(recipe, training, target) if update.settled else update.pruned
        kept = sum(int(mask.sum()) for mask in pruner.masks.values())
        zeros = round(pruner.sparsity * pruner.prunable)
        _expect(update.step == step, method, "a decision must be recorded at its step")
        counts = (update.pruned, pruner.prunable - kept, zeros)
        _expect(
            counts == (exact,) * 3,
            method,
            f"step {step} must prune exactly {exact} weights (recorded, masked, zero: {counts})",
        )
    least = 1 if recipe.schedule.from_model else 3
    _expect(seen >= least, method, f"the schedule must decide {least} times or more")
    scope = set(pruner.masks)
    outside = {n: p for n, p in training.weights().items() if n not in scope}
    _expect(all(bool((p != 0).all()) for p in outside.values()), method, "zeros outside the scope")
    exact = _exact(recipe, training, 0.7)
    _expect(training.finish().pruned == exact, method, "the final count must be exact")


def check_finish(method: Method) -> None:
    """``finish`` changes no output and leaves a plain model and a plain optimizer."""
    training = Training(_small(method)).run()
    keys, before = list(training.model.state_dict()), training.weights()
    training.finish()
    _expect(_same(before, training.weights()), method, "finish must not change weights")
    _expect(list(training.model.state_dict()) == keys, method, "finish must leave the same keys")
    hooks = training.optimizer._optimizer_step_post_hooks
    _expect(not hooks, method, "finish must remove its hooks")


def check_resume(method: Method) -> None:
    """A run stopped at any step and resumed ends in the same bits; with means in bf16 too."""
    recipe = _small(method)
    _check_resume(method, partial(Training, recipe), every=1)
    if recipe.score.means:
        _check_resume(method, partial(Training, recipe, state_dtype=torch.bfloat16), every=5)


def _check_resume(method: Method, begin: Callable[[], Training], every: int) -> None:
    whole, saved = begin().run().weights(), begin()
    for stop in range(every, STEPS, every):
        saved.run(every)
        resumed = begin()
        for part in ("model", "optimizer", "pruner"):
            state = copy.deepcopy(getattr(saved, part).state_dict())
            getattr(resumed, part).load_state_dict(state)
        resumed.count = stop
        same = _same(resumed.run(STEPS - stop).weights(), whole)
        _expect(same, method, f"resuming after step {stop} changed the run")
    saved.run(STEPS - saved.count)
    _expect(_same(saved.weights(), whole), method, "saving changed the run")


def check_accumulation(method: Method) -> None:
    """One batch of 8 and two accumulated batches of 4 make the same masks (in float64)."""
    recipe = _small(method)
    one = Training(recipe, dtype=torch.float64).run()
    two = Training(recipe, dtype=torch.float64, micro_batches=2).run()
    assert one.pruner is not None and two.pruner is not None
    _expect(_same(one.pruner.masks, two.pruner.masks), method, "accumulation must not change masks")


def _fused(recipe: Recipe, fused: bool) -> Training:
    """A training whose optimizer is fused, or is not."""
    training = Training(recipe)
    assert training.pruner is not None
    training.pruner.detach()
    training.optimizer = torch.optim.AdamW(training.model.parameters(), lr=1e-2, fused=fused)
    training.pruner.attach(training.optimizer)
    return training


def check_skipped_step(method: Method) -> None:
    """A step that a loss scaler skips changes nothing, with fused optimizers and others."""
    recipe = _small(method)
    for fused in (False, True):
        training = _fused(recipe, fused).run(STEPS // 2)
        assert training.pruner is not None
        before = copy.deepcopy(training.model.state_dict())
        state = copy.deepcopy(training.pruner.state_dict())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        loss = training.model(training.inputs[0]).mean() * float("inf")
        scaler.scale(loss).backward()
        scaler.step(training.optimizer)
        scaler.update()
        after = training.pruner.state_dict()
        saved = training.model.state_dict()
        _expect(_same(before, saved), method, "a skipped step changed weights")
        same = after["step"] == state["step"] and _same(after["masks"], state["masks"])
        for site, memory in state["memory"].items():
            same = same and _same(memory, after["memory"][site])
        _expect(same, method, f"a skipped step changed the pruner (fused={fused})")


def check_scaled_step(method: Method) -> None:
    """Loss scaling by a power of two changes nothing, with fused optimizers and others."""
    recipe = _small(method)
    for fused in (False, True):
        runs = []
        for scale in (1.0, 1024.0):
            training = _fused(recipe, fused)
            scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10_000)
            for x, y in zip(training.inputs, training.targets, strict=True):
                scaler.scale(nn.functional.mse_loss(training.model(x), y)).backward()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", SenteiWarning)
                    scaler.step(training.optimizer)
                scaler.update()
                training.optimizer.zero_grad()
            runs.append(training.weights())
        _expect(_same(*runs), method, f"loss scaling changed the run (fused={fused})")


def check_spellings(method: Method) -> None:
    """The recipe is the same in Python, dict, YAML and overrides."""
    recipe = method.build(0.7)
    _expect(
        serialization.load(serialization.dump(recipe)) == recipe,
        method,
        "YAML must load back equal",
    )
    _expect(
        serialization.load(serialization.to_dict(recipe)) == recipe,
        method,
        "a dict must load back equal",
    )
    overridden = serialization.override(method.build(0.5), ["schedule.sparsity=0.7"])
    _expect(overridden == recipe, method, "an override must equal the argument")
    _expect(recipe.method == method.name, method, "the recipe must carry the method's name")


def check_seed(method: Method) -> None:
    """The same seed makes the same masks."""
    runs = [Training(_small(method)).run() for _ in range(2)]
    masks = [training.pruner.masks for training in runs if training.pruner]
    _expect(_same(*masks), method, "two equal runs must make equal masks")


def check_bytes(method: Method) -> None:
    """Declared bytes per weight are the bytes the state holds."""
    recipe = _small(method)
    training = Training(recipe).run(STEPS // 2)
    assert training.pruner is not None
    state = training.pruner.state_dict()
    tensors = [*state["masks"].values()]
    tensors += [tensor for memory in state["memory"].values() for tensor in memory.values()]
    measured = sum(tensor.nbytes for tensor in tensors) / training.pruner.prunable
    _expect(
        measured == recipe.bytes_per_weight,
        method,
        f"declares {recipe.bytes_per_weight} bytes a weight and holds {measured:g}",
    )
    kept = sum(tensor.nbytes for of in state["inputs"].values() for tensor in of.values())
    declared = observed_bytes(training.model, recipe.scope.resolve(training.model).sites, recipe)
    _expect(kept == declared, method, f"declares {declared} bytes of inputs and holds {kept}")


def check_early_stop(method: Method) -> None:
    """Training that stops early is pruned to the final count: with a warning, if it was not there,
    as no schedule is after a quarter of training.

    A sparsity that is the model's own is there from the start.
    """
    recipe = _small(method)
    training = Training(recipe).run(STEPS // 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = training.finish()
    exact = _exact(recipe, training, 0.7)
    _expect(report.pruned == exact, method, "stopping early must stay exact")
    warned = any(issubclass(warning.category, SenteiWarning) for warning in caught)
    _expect(
        warned != recipe.schedule.from_model,
        method,
        "stopping early must warn, if it changes weights",
    )


CHECKS: tuple[Callable[[Method], None], ...] = (
    check_zero_sparsity,
    check_counts,
    check_finish,
    check_resume,
    check_accumulation,
    check_skipped_step,
    check_scaled_step,
    check_spellings,
    check_seed,
    check_bytes,
    check_early_stop,
)
"""What :func:`check_method` checks, in order."""
