"""The engine: observe, decide, apply, at the optimizer's own step hooks.

    loss.backward() --> before the step   observe: the score reads weight and gradient
                                          penalties add to the gradient
    optimizer.step()                      the optimizer moves the weights
                    --> after the step    decide: schedule -> budget -> cut (on update steps)
                                          apply: the mask makes the weights sparse

Gradients at the hooks are accumulated, reduced and clipped, and a step that a loss scaler skips
does not count: micro-batches and skipped steps do not exist here.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentei import serialization
from sentei.messages import SenteiWarning
from sentei.modules import taught, unwrapped
from sentei.parts.budget import LearnedRatio
from sentei.parts.masks import Gated, HardConcrete
from sentei.parts.part import Moment
from sentei.pruning import checkpoint as states
from sentei.pruning.cut import Bracket
from sentei.pruning.dropout import Dropout
from sentei.pruning.engine import FASTER, NEAR, Engine
from sentei.pruning.summary import histograms
from sentei.recipe import Recipe, check_type
from sentei.records import PruningReport, SiteRecord, UnitsRecord, UpdateRecord
from sentei.tensors import count_zeros

STATE_FORMAT = 4

CHECKED = 4096
"""Weights of every site by which a checkpoint is known again."""

_STATE = frozenset(
    "recipe total_steps step pruned settled weights brackets updates masks memory units "
    "budget".split()
)


class _Hook:
    """A hook of one module, which its deep copies and pickles do not carry on."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    def __call__(self, *args: Any) -> None:
        if self.act is not None:
            self.act(*args)

    def __deepcopy__(self, memo: Any) -> _Hook:
        return _Hook()

    def __reduce__(self) -> Any:
        return _Hook, ()


class Pruner:
    """Prunes a model while somebody else trains it.

    Args:
        model: The model being trained; its parameters are changed in place by the mask.
        recipe: What to do.
        total_steps: Optimizer steps that training will take.
        examples: Number of training examples, for recipes with a prior on the weights.

    Raises:
        TypeError: ``recipe`` is none.
        ValueError: The scope matches nothing or something that cannot be pruned, the schedule
            does not fit into ``total_steps``, or ``examples`` is needed and missing.

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

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        total_steps: int,
        examples: int | None = None,
    ) -> None:
        check_type(recipe)
        if examples is not None:
            recipe = recipe.with_examples(examples)
        recipe.check(total_steps)
        selection, units = recipe.resolve(model)
        recipe = recipe.with_zeros(selection)
        self.recipe = recipe
        self.total_steps = total_steps
        self.step = 0
        self._model = model
        self._selection = selection
        self._sites = selection.sites
        self._engine = Engine(self._sites, units, recipe, total_steps)
        self._finished = False
        self._skipping = False
        self._expected_weights: int | None = None
        self._versions: list[int] = []
        self._lr: dict[int, float] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._dropout = Dropout(model)

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return self._engine.prunable

    @property
    def pruned(self) -> int:
        """Number of weights that the latest decision pruned."""
        return self._engine.pruned

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
        return self._engine.updates

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, by site name; True = kept. The pruner's own tensors, not copies."""
        masks: dict[str, Tensor] = self._engine.tensors()["masks"]
        return masks

    @property
    def ratios(self) -> dict[str, float]:
        """Kept ratio by name of a site, or of a head's or neurons' place, where they are learned.

        Where several patterns share a place its kind stands before the name.
        """
        if not isinstance(self.recipe.budget, LearnedRatio):
            return {}
        ratios = self.recipe.budget.ratios(self._engine.budget).tolist()
        units = self._engine.units
        several = len({made.name for made in units}) < len(units)
        names = [f"{made.kind} {made.name}" if several else made.name for made in units]
        return dict(zip(names, ratios, strict=True))

    def attach(self, optimizer: Optimizer) -> None:
        """Prune at every step of ``optimizer`` from now on. Nothing else in the loop changes.

        If the recipe asks for less dropout (``auto`` for none), the model has it from now on, until
        the pruner finishes or is detached.

        Args:
            optimizer: Any torch optimizer that holds the prunable weights, or Accelerate's wrapper
                of one.

        Raises:
            ValueError: It is no torch optimizer, it does not hold every prunable weight, it writes
                to gradients that the score reads after it, or this pruner is attached already.
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
        if self.recipe.score.observes_new:
            _check_keeps_gradients(optimizer)
        if not self._engine.held and self.recipe.with_zeros(self._selection) != self.recipe:
            raise ValueError(
                "the model has other zeros than when the pruner was made, and they are what this "
                "recipe keeps: load the model's weights first, then make the pruner"
            )
        self._engine.allocate()
        if isinstance(self.recipe.mask, Gated) and not self._versions and not self._idle:
            self._versions = [site.parameter._version for site in self._sites]
        if self.recipe.dropout < 1 and not self._idle:
            self._dropout.scale(self.recipe.dropout)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        model = unwrapped(self._model)
        if isinstance(self.recipe.mask, Gated):
            self._hooks.append(model.register_state_dict_pre_hook(_Hook(self._before_saving)))
        if isinstance(self.recipe.mask, HardConcrete):
            self._hooks.append(model.register_forward_pre_hook(_Hook(self._before_forward)))

    def detach(self) -> None:
        """Stop pruning; the weights stay as they are, dropout is what it was, the state is kept."""
        self._rest()
        if self.recipe.dropout < 1:
            self._dropout.scale(1)
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
        self._rest()
        if not self._idle:
            self._decide_last()
        self.detach()
        report = self._report()
        self._engine.release()
        self._finished = True
        return report

    @torch.no_grad()
    def _decide_last(self) -> None:
        """Decide at the final sparsity, where the last step has not."""
        engine, end = self._engine, self._moment(self.total_steps)
        settled = self.recipe.budget.settled(end)
        last = engine.updates[-1] if engine.updates else None
        if not last or (last.step, last.target, last.settled) != (self.step, end.final, settled):
            self.recipe.score.check(self.step)
            engine.decide(end, self.step)
            engine.write(end, updated=True)
        if not settled and abs(self.pruned / self.prunable - end.final) > NEAR:
            warnings.warn(
                f"training ended at sparsity {self.pruned / self.prunable:.4f}, not {end.final:g}: "
                f"this recipe leaves the sparsity as it comes. {FASTER}; or set budget.settle for "
                "the exact count",
                SenteiWarning,
                stacklevel=4,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the weights: plain values and tensors, no copies.

        Pass it to :meth:`load_state_dict` of a pruner with the same model, recipe and steps; the
        run then continues bit for bit.
        """
        self._engine.allocate()
        self._rest()
        return {
            "format": STATE_FORMAT,
            "recipe": serialization.to_dict(self.recipe),
            "total_steps": self.total_steps,
            "step": self.step,
            "pruned": self.pruned,
            "settled": self._engine.settled,
            "weights": self._checksum(),
            "brackets": {
                str(i): [b.low, b.high, b.threshold] for i, b in self._engine.brackets.items()
            },
            "updates": [update.model_dump() for update in self.updates],
            **self._engine.tensors(),
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
        if missing := sorted(_STATE - state.keys()):
            raise ValueError(f"not a whole pruner state: it has no {missing[0]!r}")
        recipe, saved = self.recipe, state["recipe"]["schedule"]
        if recipe.schedule.found and saved["kind"] == "found":
            # Weights that are kept may have come to zero since: the state knows what was found.
            recipe = serialization.override(recipe, [f"schedule.sparsity={saved['sparsity']!r}"])
        new = serialization.to_dict(recipe)
        difference = states.first_difference(state["recipe"], new, "recipe")
        if difference is None and state["total_steps"] != self.total_steps:
            difference = f"total_steps was {state['total_steps']}, is {self.total_steps}"
        difference = difference or self._engine.difference(state)
        if difference:
            raise ValueError(f"cannot resume: {difference}")
        engine = self._engine
        self.recipe = engine.recipe = recipe
        engine.allocate()
        engine.restore(state)
        engine.pruned, engine.settled = state["pruned"], state["settled"]
        engine.brackets = {int(i): Bracket(*ends) for i, ends in state["brackets"].items()}
        engine.updates = [UpdateRecord(**update) for update in state["updates"]]
        self.step = state["step"]
        self._expected_weights, self._versions = state["weights"], []

    def save(self, path: str | Path) -> None:
        """Write :meth:`state_dict` as one safetensors file; an earlier file there stays whole
        until the new one is complete.

        Raises:
            OSError: It could not be written.
        """
        states.write(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Read a file of :meth:`save`.

        Raises:
            ValueError: It is missing, damaged or not a pruner's state, or does not fit (see
                :meth:`load_state_dict`).
        """
        try:
            self.load_state_dict(states.read(path))
        except ValueError as error:
            message = str(error)
            raise ValueError(message if str(path) in message else f"{path}: {message}") from error

    # Observe, decide, apply.

    @property
    def _idle(self) -> bool:
        """At sparsity 0 training is left alone: no score, no penalty, no mask."""
        return self.recipe.schedule.sparsity == 0

    def _moment(self, step: int, decision: int | None = None) -> Moment:
        """Where training is at ``step``; ``decision`` is the step whose target holds."""
        schedule, total = self.recipe.schedule, self.total_steps
        return Moment(
            step=step,
            total=total,
            sparsity=schedule.at(step if decision is None else decision, total),
            final=schedule.sparsity,
            reached=self.pruned / self.prunable,
            ramp=schedule.ramp(step, total),
        )

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._swap_back()
        self._skipping = _overflowed(optimizer)
        if self._skipping:
            self._rest()
            self._engine.from_sample = False
        if self._skipping or self._idle:
            return
        if self.step == 0:
            self._check_teacher()
        self._check_weights()
        _unscale_(optimizer)
        if self._engine.reads_gradient:
            if next(iter(args[1:]), kwargs.get("closure")) is not None:
                raise ValueError(
                    "this recipe reads or changes gradients before the optimizer's step, but a "
                    "closure computes them inside: step without a closure, or (where the score is "
                    "why) use score.iterate='new'"
                )
            self._engine.learn(self._moment(self.step + 1, decision=self.step))
        if self._engine.shrinks:
            groups = optimizer.param_groups
            self._lr = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        self._engine.swap()

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
        if self._idle:
            return
        engine, moment = self._engine, self._moment(self.step)
        engine.swap()
        if engine.shrinks:
            engine.shrink(self._lr, moment)
        if self.recipe.score.observes_new:
            engine.observe(self.step)
        engine.note_step(self.step)
        updated = self.recipe.schedule.is_update(self.step, self.total_steps)
        if updated:
            if not isinstance(self.recipe.mask, Gated):
                engine.write(moment, updated=False)  # a held weight is zero when it is ranked
            engine.decide(moment, self.step)
        engine.write(moment, updated=updated)
        engine.from_sample = False
        if isinstance(self.recipe.mask, Gated):
            self._versions = [site.parameter._version for site in self._sites]

    @torch.no_grad()
    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """Write a sample of stochastic weights in training, the deterministic ones otherwise."""
        if getattr(module, "_is_replica", False):
            raise ValueError(
                "stochastic gates cannot be drawn under DataParallel, which has copied the weights "
                "by then: use one process a GPU (torchrun), or one GPU (CUDA_VISIBLE_DEVICES=0)"
            )
        if module.training and not self._idle:
            self._check_weights()
            self._engine.sample()
        else:
            self._rest()

    def _before_saving(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._rest()

    @torch.no_grad()
    def _rest(self) -> None:
        """Leave the deterministic weights in the module."""
        self._swap_back()
        if self._engine.sampled:
            self._engine.write(self._moment(self.step), updated=False)

    def _swap_back(self) -> None:
        """After an optimizer's step that was broken off, give the module its sparse weights."""
        if self._engine.swapped:
            self._engine.swap()
            self._engine.write(self._moment(self.step), updated=False)
            self._versions = [site.parameter._version for site in self._sites]

    def _check_teacher(self) -> None:
        """The pruner prunes; somebody else must bring the teacher that a recipe asks for."""
        distill = self.recipe.distill
        if distill and distill.required and not taught(self._model):
            warnings.warn(
                f"the recipe {self.recipe.method} learns from a teacher, and none is attached: use "
                "sentei.Distiller(model, teacher, recipe.distill).attach(), or say that there is "
                "none with the recipe's distill=None",
                SenteiWarning,
                stacklevel=3,
            )

    def _check_weights(self) -> None:
        """Refuse weights that somebody else has exchanged since the last step."""
        if self._expected_weights is not None and self._expected_weights != self._checksum():
            raise ValueError(
                f"cannot resume at step {self.step}: the prunable weights are not what they were "
                "when the pruner's state was saved; load the model's weights of the same checkpoint"
            )
        self._expected_weights = None
        for held in self._engine.held:
            if held.keep.device != held.weight.device:
                raise ValueError(
                    f"{held.site.name} is on {held.weight.device}, and was on {held.keep.device} "
                    "when the pruner was attached: move the model first, then attach"
                )
        for site, version in zip(self._sites, self._versions, strict=False):
            if site.parameter._version != version:
                raise ValueError(
                    f"{site.name} was written to between two steps of the optimizer, and this "
                    "recipe would undo it, because it keeps the dense weights aside: load weights "
                    "before pruner.attach, or with pruner.load_state_dict"
                )

    def _checksum(self) -> int:
        """Of some of every site's bytes: tells one checkpoint's weights from another's.

        Of every site, because one may be wholly zero.
        """
        found = 0
        for site in self._sites:
            some = site.parameter.detach().view(-1)[:CHECKED].cpu()
            found = zlib.crc32(some.view(torch.uint8).numpy().data, found)
        return found

    @torch.no_grad()
    def _report(self) -> PruningReport:
        for site in self._sites:
            if not torch.isfinite(site.parameter.data).all():
                raise FloatingPointError(f"{site.name} holds NaN or infinite weights")
        engine = self._engine
        zeros = [count_zeros(site.parameter) for site in self._sites]
        parameters = list(self._model.parameters())
        weights, scores = histograms(
            [held.weight for held in engine.held],
            [held.keep for held in engine.held],
            [engine.scores(place) for place in range(len(engine.units))],
            [ranked.keep for ranked in engine.ranked],
        )
        return PruningReport(
            method=self.recipe.method,
            recipe=serialization.to_dict(self.recipe),
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
                    weights=site.parameter.numel(),
                    pruned=zero,
                )
                for site, zero in zip(self._sites, zeros, strict=True)
            ),
            units=tuple(
                UnitsRecord(
                    kind=ranked.units.kind,
                    name=ranked.units.name,
                    layer=ranked.units.layer,
                    units=ranked.units.count,
                    pruned=ranked.units.count - int(ranked.keep.sum()),
                )
                for ranked in engine.ranked
                if ranked.units.pooled or ranked.units.n_m
            ),
            updates=tuple(engine.updates),
            weight_histogram=weights,
            score_histogram=scores,
        )


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


def _check_keeps_gradients(optimizer: Optimizer) -> None:
    """Refuse SGD with Nesterov's momentum where it adds the momentum to the gradients in place.

    torch does so for many tensors at once (foreach, the default on a GPU) without weight decay.
    """
    for group in optimizer.param_groups:
        several = group.get("foreach")
        if several is None:
            several = any(p.is_cuda for p in group["params"]) and not group.get("fused")
        if several and group.get("nesterov") and not group.get("weight_decay"):
            raise ValueError(
                "SGD(nesterov=True) on many tensors at once changes the gradients that this recipe "
                "reads after its step: give it foreach=False, or use score.iterate='old'"
            )


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
    torch._foreach_mul_(gradients, 1 / float(scale.item()))
    optimizer.grad_scale = None  # type: ignore[attr-defined]
