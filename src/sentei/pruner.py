"""The engine: observe, decide, apply, at the optimizer's own step hooks.

    loss.backward() --> before the step   observe: the score reads weight and gradient
    optimizer.step()                      the optimizer moves the weights
                    --> after the step    decide: schedule -> budget -> cut (on update steps)
                                          apply: the mask makes the weights sparse

Gradients at the hooks are accumulated, reduced and clipped, and a step that a loss scaler skips
does not count: micro-batches and skipped steps do not exist here.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sentei import recipe as recipes
from sentei.measure import count_zeros, histograms
from sentei.parts.budget import Group
from sentei.parts.scope import Site
from sentei.recipe import Recipe
from sentei.record import PruningReport, SiteRecord, UpdateRecord
from sentei.select import Bracket, Cut, Scores, find_cut, prune_, spans

STATE_FORMAT = 1


class SenteiWarning(UserWarning):
    """Something was asked for that will not happen as asked."""


class Pruner:
    """Prunes a model while somebody else trains it.

    Args:
        model: The model being trained; its parameters are changed in place by the mask.
        recipe: What to do.
        total_steps: Optimizer steps that training will take.

    Raises:
        ValueError: The scope matches nothing or something that cannot be pruned, or the schedule
            does not fit into ``total_steps``.

    Example:
        >>> import torch, sentei
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> recipe = sentei.magnitude(0.5, scope={"include": ["weight"]}, every=1)
        >>> pruner = sentei.Pruner(model, recipe, total_steps=10)
        >>> pruner.attach(optimizer)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(2, 10)).square().mean().backward()
        ...     _ = optimizer.step()
        >>> pruner.finish().sparsity
        0.5
    """

    def __init__(self, model: nn.Module, recipe: Recipe, *, total_steps: int) -> None:
        recipe.check(total_steps)
        self.recipe = recipe
        self.total_steps = total_steps
        self.step = 0
        self.pruned = 0
        self._model = model
        self._sites: tuple[Site, ...] = recipe.scope.resolve(model).sites
        self._sizes = [site.parameter.numel() for site in self._sites]
        self._memory: list[dict[str, Tensor]] = []
        self._masks: list[Tensor] = []
        self._scratch: Tensor | None = None
        self._groups: tuple[Group, ...] = ()
        self._brackets: dict[int, Bracket] = {}
        self._scores_changed = True
        self._updates: list[UpdateRecord] = []
        self._finished = False
        self._skipping = False
        self._expected_weights: int | None = None
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(self._sizes)

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are exactly zero now, counted (one pass)."""
        return sum(count_zeros(site.parameter) for site in self._sites) / self.prunable

    @property
    def target(self) -> float:
        """Sparsity that the schedule asks for at the current step."""
        return self.recipe.schedule.at(self.step, self.total_steps)

    @property
    def updates(self) -> Sequence[UpdateRecord]:
        """Every decision so far, oldest first."""
        return self._updates

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, by site name; True = kept. The pruner's own tensors, not copies."""
        return {site.name: mask for site, mask in zip(self._sites, self._masks, strict=True)}

    def attach(self, optimizer: Optimizer) -> None:
        """Prune at every step of ``optimizer`` from now on. Nothing else in the loop changes.

        Args:
            optimizer: Any torch optimizer that holds the prunable weights, or Accelerate's wrapper
                of one.

        Raises:
            ValueError: It is no torch optimizer, it does not hold every prunable weight, or this
                pruner is attached already.
        """
        if self._hooks:
            raise ValueError("this pruner is attached to an optimizer already")
        if self._finished:
            raise ValueError("this pruner has finished: make another for another training")
        optimizer = _innermost(optimizer)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [site.name for site in self._sites if id(site.parameter) not in held]
        if missing:
            raise ValueError(
                f"{missing[0]} and {len(missing) - 1} more prunable weights are not in the "
                "optimizer: give it all of model.parameters(), or exclude them from the scope"
                if len(missing) > 1
                else f"{missing[0]} is not in the optimizer: add it, or exclude it from the scope"
            )
        if not self._masks:
            self._allocate()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def detach(self) -> None:
        """Stop pruning; the weights stay as they are and the state is kept."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def finish(self) -> PruningReport:
        """Make the last decision at the final sparsity, detach, drop the state, and report.

        Where the last training step has decided already, no weight changes.

        Returns:
            The report; every number in it is measured on the model's weights.

        Raises:
            ValueError: No optimizer step was seen, or too few for the score to mean anything.
            FloatingPointError: A prunable weight is NaN or infinite.
        """
        if self.step == 0:
            raise ValueError(
                "pruning never ran: no step of an attached optimizer was seen. Call "
                "pruner.attach(optimizer) before training, with the optimizer that is stepped"
            )
        if self._finished:
            raise ValueError("this pruner has finished already")
        if self.target < self.recipe.schedule.sparsity:
            warnings.warn(
                f"training stopped at step {self.step} of {self.total_steps}: pruning straight "
                f"to the final sparsity {self.recipe.schedule.sparsity:g}",
                SenteiWarning,
                stacklevel=2,
            )
        final = self.recipe.schedule.sparsity
        decided = (self._updates[-1].step, self._updates[-1].target) if self._updates else None
        if decided != (self.step, final):
            self.recipe.score.check(self.step)
            self._decide(final)
            with torch.no_grad():
                self._apply(updated=True)
        self.detach()
        report = self._report()
        self._memory, self._masks, self._scratch = [], [], None
        self._finished = True
        return report

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the weights: plain values and tensors, no copies.

        Pass it to :meth:`load_state_dict` of a pruner with the same model, recipe and steps; the
        run then continues bit for bit.
        """
        if not self._masks:
            self._allocate()
        names = [site.name for site in self._sites]
        return {
            "format": STATE_FORMAT,
            "recipe": recipes.to_dict(self.recipe),
            "total_steps": self.total_steps,
            "step": self.step,
            "pruned": self.pruned,
            "weights": self._checksum(),
            "brackets": {str(i): [b.low, b.high, b.threshold] for i, b in self._brackets.items()},
            "updates": [update.model_dump() for update in self._updates],
            "masks": dict(zip(names, self._masks, strict=True)),
            "memory": dict(zip(names, self._memory, strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken. The weights are loaded by their owner.

        Raises:
            ValueError: The state is of another format, recipe, number of steps or scope; the
                pruner is then unchanged. Or, at the next step: the weights are not those that the
                state was saved with.
        """
        if state.get("format") != STATE_FORMAT:
            raise ValueError(
                f"pruner state of format {state.get('format')}; this version reads {STATE_FORMAT}"
            )
        difference = _first_difference(state["recipe"], recipes.to_dict(self.recipe), "recipe")
        if difference is None and state["total_steps"] != self.total_steps:
            difference = f"total_steps was {state['total_steps']}, is {self.total_steps}"
        difference = difference or self._scope_difference(state["masks"])
        difference = difference or self._memory_difference(state["memory"])
        if difference:
            raise ValueError(f"cannot resume: {difference}")
        if not self._masks:
            self._allocate()
        for site, mask, memory in zip(self._sites, self._masks, self._memory, strict=True):
            mask.copy_(state["masks"][site.name])
            for name, tensor in memory.items():
                tensor.copy_(state["memory"][site.name][name])
        self.step = state["step"]
        self.pruned = state["pruned"]
        self._expected_weights = state["weights"]
        self._brackets = {int(i): Bracket(*ends) for i, ends in state["brackets"].items()}
        self._updates = [UpdateRecord(**update) for update in state["updates"]]
        self._groups, self._scores_changed = (), True

    def save(self, path: str | Path) -> None:
        """Write :meth:`state_dict` as one safetensors file; an earlier file there stays whole
        until the new one is complete.

        Raises:
            OSError: It could not be written.
        """
        state = self.state_dict()
        tensors = {f"mask:{name}": mask for name, mask in state.pop("masks").items()}
        for site, memory in state.pop("memory").items():
            tensors |= {f"{name}:{site}": tensor for name, tensor in memory.items()}
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            save_file(tensors, unfinished, metadata={"sentei": json.dumps(state)})
            os.replace(unfinished, path)
        except SafetensorError as error:
            raise OSError(f"{path}: cannot write the pruner's state: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def load(self, path: str | Path) -> None:
        """Read a file of :meth:`save`.

        Raises:
            ValueError: It is missing, damaged or not a pruner's state, or does not fit (see
                :meth:`load_state_dict`).
        """
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["sentei"])
                state |= {"masks": {}, "memory": {site.name: {} for site in self._sites}}
                for key in file.keys():
                    name, _, site = key.partition(":")
                    if name == "mask":
                        state["masks"][site] = file.get_tensor(key)
                    else:
                        state["memory"].setdefault(site, {})[name] = file.get_tensor(key)
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not a readable pruner state: {error}") from error
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    # Observe, decide, apply.

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._skipping = _overflowed(optimizer)
        if self._skipping:
            return
        if self._expected_weights is not None and self._expected_weights != self._checksum():
            raise ValueError(
                f"cannot resume at step {self.step}: {self._sites[0].name} is not what it was when "
                "the pruner's state was saved; load the model's weights of the same checkpoint"
            )
        self._expected_weights = None
        _unscale_(optimizer)
        if self.recipe.score.observes and not self.recipe.score.observes_new:
            if next(iter(args[1:]), kwargs.get("closure")) is not None:
                raise ValueError(
                    "score.iterate='old' reads the gradient before the optimizer's step, but a "
                    "closure computes it inside: use score.iterate='new'"
                )
            self._observe(self.step + 1)
        for site, keep in zip(self._sites, self._masks, strict=True):
            self.recipe.mask.before_step_(site.parameter.data, keep)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._skipping:
            return
        self.step += 1
        if self.step == self.total_steps + 1:
            warnings.warn(
                f"training goes on past total_steps={self.total_steps}: the sparsity stays at "
                f"{self.recipe.schedule.sparsity:g}",
                SenteiWarning,
                stacklevel=2,
            )
        score = self.recipe.score
        if score.observes and score.observes_new:
            self._observe(self.step)
        self._scores_changed |= score.changes_at(self.step)
        self._apply(updated=False)  # a held weight is zero when it is ranked
        if self.recipe.schedule.is_update(self.step, self.total_steps):
            self._decide(self.target)
            self._apply(updated=True)

    def _apply(self, *, updated: bool) -> None:
        for site, keep in zip(self._sites, self._masks, strict=True):
            self.recipe.mask.after_step_(site.parameter.data, keep, updated)

    def _observe(self, step: int) -> None:
        for site, memory in zip(self._sites, self._memory, strict=True):
            gradient = site.parameter.grad
            if gradient is None:
                raise ValueError(
                    f"{site.name} has no gradient at step {step}, and the score needs one: exclude "
                    "it from the scope if the loss does not reach it; with iterate='new', zero "
                    "gradients after the optimizer's step, not inside it"
                )
            weight, gradient = site.parameter.data.view(-1), gradient.reshape(-1)
            flat = {name: tensor.view(-1) for name, tensor in memory.items()}
            for start, stop in spans(weight.numel(), weight.device):
                self.recipe.score.observe_(
                    {name: tensor[start:stop] for name, tensor in flat.items()},
                    weight[start:stop],
                    gradient[start:stop],
                    step,
                    self._scratch_for(weight, stop - start),
                )

    @torch.no_grad()
    def _decide(self, target: float) -> None:
        groups = self.recipe.budget.split(self._sizes, target)
        before, flips = self.pruned, 0
        threshold = self._updates[-1].threshold if self._updates else None
        if self._scores_changed or groups != self._groups:
            cuts = []
            for number, group in enumerate(groups):
                cut, changed = self._cut(number, group)
                cuts.append(cut)
                flips += changed
            self.pruned = sum(cut.below + cut.ties for cut in cuts)
            threshold = cuts[0].threshold if len(cuts) == 1 and self.pruned else None
        self._groups, self._scores_changed = groups, False
        either = (before + self.pruned + flips) // 2
        both = (before + self.pruned - flips) // 2
        kept_by_either = self.prunable - both
        self._updates.append(
            UpdateRecord(
                step=self.step,
                target=target,
                pruned=self.pruned,
                flips=flips,
                overlap=(self.prunable - either) / kept_by_either if kept_by_either else 1.0,
                threshold=threshold,
            )
        )

    def _cut(self, number: int, group: Group) -> tuple[Cut, int]:
        scores = [self._scores(site) for site in group.sites]
        try:
            cut, self._brackets[number] = find_cut(scores, group.count, self._brackets.get(number))
            if group.strict:
                cut = Cut(cut.threshold, cut.below, 0)
            return cut, prune_([self._masks[site] for site in group.sites], scores, cut)
        except FloatingPointError as error:
            bad = [s.name for s in self._sites if not torch.isfinite(s.parameter.data).all()]
            where = f"{bad[0]} is not finite" if bad else "the weights are finite, a score is not"
            raise FloatingPointError(
                f"pruning cannot rank the weights at step {self.step}: {error} ({where}). Training "
                "has probably diverged: lower the learning rate; the last checkpoint is untouched"
            ) from error

    def _scores(self, index: int) -> Scores:
        weight = self._sites[index].parameter.data.view(-1)
        memory = {name: tensor.view(-1) for name, tensor in self._memory[index].items()}

        def read(start: int, stop: int) -> Tensor:
            pieces = {name: tensor[start:stop] for name, tensor in memory.items()}
            out = self._scratch_for(weight, stop - start)
            return self.recipe.score.value(pieces, weight[start:stop], out)

        return Scores(weight.numel(), weight.device, read)

    def _scratch_for(self, weight: Tensor, size: int) -> Tensor:
        """A buffer of ``size`` scores beside ``weight``: one allocation, reused."""
        dtype = _score_dtype(weight)
        scratch = self._scratch
        if scratch is None or scratch.numel() < size or scratch.dtype != dtype:
            scratch = self._scratch = torch.empty(size, dtype=dtype, device=weight.device)
        elif scratch.device != weight.device:
            scratch = self._scratch = torch.empty(size, dtype=dtype, device=weight.device)
        return scratch[:size]

    def _allocate(self) -> None:
        weights = [site.parameter.data for site in self._sites]
        self._masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
        self._memory = [
            {
                name: torch.zeros_like(weight, dtype=_score_dtype(weight))
                for name in self.recipe.score.memory
            }
            for weight in weights
        ]

    def _checksum(self) -> int:
        """Of the first site's bytes: tells one checkpoint's weights from another's."""
        weight = self._sites[0].parameter.detach().cpu()
        return zlib.crc32(weight.view(-1).view(torch.uint8).numpy().data)

    def _memory_difference(self, saved: Mapping[str, Mapping[str, Tensor]]) -> str | None:
        for site in self._sites:
            for name in self.recipe.score.memory:
                if name not in saved.get(site.name, {}):
                    return f"the saved state has no {name} of {site.name}"
        return None

    def _scope_difference(self, saved: Mapping[str, Tensor]) -> str | None:
        shapes = {site.name: tuple(site.parameter.shape) for site in self._sites}
        for name, mask in saved.items():
            if name not in shapes:
                return f"{name} was pruned and is not in the scope now"
            if tuple(mask.shape) != shapes[name]:
                return f"{name} was {tuple(mask.shape)} and is {shapes[name]} now"
        new = next((name for name in shapes if name not in saved), None)
        return f"{new} is in the scope now and was not pruned" if new else None

    @torch.no_grad()
    def _report(self) -> PruningReport:
        for site in self._sites:
            if not torch.isfinite(site.parameter.data).all():
                raise FloatingPointError(f"{site.name} holds NaN or infinite weights")
        zeros = [count_zeros(site.parameter) for site in self._sites]
        parameters = list(self._model.parameters())
        weights, scores = histograms(
            [site.parameter.data for site in self._sites],
            self._masks,
            [self._scores(index) for index in range(len(self._sites))],
        )
        return PruningReport(
            method=self.recipe.method,
            recipe=recipes.to_dict(self.recipe),
            step=self.step,
            total_steps=self.total_steps,
            target=self.recipe.schedule.sparsity,
            prunable=self.prunable,
            pruned=sum(zeros),
            parameters=sum(parameter.numel() for parameter in parameters),
            zeros=sum(count_zeros(parameter) for parameter in parameters),
            sites=tuple(
                SiteRecord(
                    name=site.name,
                    layer=site.layer,
                    role=site.role,
                    shape=tuple(site.parameter.shape),
                    weights=size,
                    pruned=zero,
                )
                for site, size, zero in zip(self._sites, self._sizes, zeros, strict=True)
            ),
            updates=tuple(self._updates),
            weight_histogram=weights,
            score_histogram=scores,
        )


def _score_dtype(weight: Tensor) -> torch.dtype:
    """Scores are products near 1e-16: float32 at least."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def _innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer that really steps, under Accelerate's wrapper."""
    if (
        type(optimizer).__module__.startswith("deepspeed")
        or "DeepSpeed" in type(optimizer).__name__
    ):
        raise ValueError(
            "DeepSpeed engines keep their own flattened weights, which cannot be pruned from "
            "outside: train with DDP or a plain optimizer"
        )
    inner = getattr(optimizer, "optimizer", optimizer)
    if inner is not optimizer:
        return _innermost(inner)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"expected a torch optimizer, got {type(optimizer).__name__}")
    return optimizer


def _overflowed(optimizer: Optimizer) -> bool:
    """Whether a loss scaler hands a step to an optimizer that will skip it itself.

    GradScaler steps optimizers that unscale on their own (fused ones) even on overflow, with
    ``found_inf`` set on them.
    """
    found: Tensor | None = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item())


def _unscale_(optimizer: Optimizer) -> None:
    """Unscale gradients that a fused optimizer would unscale inside its step.

    The same as the user's ``scaler.unscale_(optimizer)`` just before the step: GradScaler sets
    ``grad_scale`` to None where gradients are unscaled already.
    """
    scale: Tensor | None = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    torch._foreach_mul_(gradients, scale.double().reciprocal().item())
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def _first_difference(old: Any, new: Any, path: str) -> str | None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            difference = _first_difference(old.get(key), new.get(key), f"{path}.{key}")
            if difference:
                return difference
        return None
    return None if old == new else f"{path} was {old!r}, is {new!r}"
