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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentei import recipe as recipes
from sentei import state as states
from sentei.measure import count_zeros, histograms
from sentei.parts.budget import Emergent, Group, LearnedRatio
from sentei.parts.masks import HardConcrete, Latent, Project
from sentei.parts.part import Moment
from sentei.parts.penalties import ProximalPenalty, RatioPenalty, ScorePenalty, WeightPenalty
from sentei.parts.scope import Site
from sentei.parts.scores import Learned
from sentei.recipe import Recipe
from sentei.record import PruningReport, SiteRecord, UpdateRecord
from sentei.select import Bracket, Cut, Scores, cut_at, find_cut, prune_, spans

STATE_FORMAT = 2

NEAR = 0.005
"""How far from the sparsity asked for a learned one may end without a warning."""


class SenteiWarning(UserWarning):
    """Something was asked for that will not happen as asked."""


@dataclass
class Held:
    """What is kept beside the weight of one site: the mask, and memory of score and mask."""

    site: Site
    number: int
    keep: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """What the module holds."""
        return self.site.parameter.data

    @property
    def dense(self) -> Tensor:
        """The weight that training moves: the latent one, where the mask keeps one."""
        return self.memory.get("latent", self.weight)

    def swap(self) -> None:
        """Exchange what the module holds with the latent weight, without copying either."""
        parameter = self.site.parameter
        parameter.data, self.memory["latent"] = self.memory["latent"], parameter.data


class Pruner:
    """Prunes a model while somebody else trains it.

    Args:
        model: The model being trained; its parameters are changed in place by the mask.
        recipe: What to do.
        total_steps: Optimizer steps that training will take.
        examples: Number of training examples, for recipes with a prior on the weights.

    Raises:
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
        if examples is not None:
            recipe = recipe.with_examples(examples)
        recipe.check(total_steps)
        self.recipe = recipe
        self.total_steps = total_steps
        self.step = 0
        self.pruned = 0
        self._model = model
        self._sites: tuple[Site, ...] = recipe.scope.resolve(model).sites
        self._sizes = [site.parameter.numel() for site in self._sites]
        self._held: list[Held] = []
        self._budget = recipe.budget.start(self._sizes, total_steps, recipe.schedule.sparsity)
        self._scratch: Tensor | None = None
        self._groups: tuple[Group, ...] = ()
        self._brackets: dict[int, Bracket] = {}
        self._scores_changed = True
        self._updates: list[UpdateRecord] = []
        self._finished = False
        self._skipping = False
        self._settled = False
        self._sampled = False
        self._expected_weights: int | None = None
        self._versions: list[int] = []
        self._lr: dict[int, float] = {}
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
        return {held.site.name: held.keep for held in self._held}

    @property
    def ratios(self) -> dict[str, float]:
        """Kept ratio of every site by name, where the budget learns them."""
        if not isinstance(self.recipe.budget, LearnedRatio):
            return {}
        ratios = self.recipe.budget.ratios(self._budget).tolist()
        return {site.name: ratio for site, ratio in zip(self._sites, ratios, strict=True)}

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
        if not self._held:
            self._allocate()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        if isinstance(self.recipe.mask, HardConcrete):
            self._hooks += [
                self._model.register_forward_pre_hook(self._before_forward),
                self._model.register_state_dict_pre_hook(self._before_saving),
            ]

    def detach(self) -> None:
        """Stop pruning; the weights stay as they are and the state is kept."""
        self._rest()
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
        if not self._idle:
            self._decide_last()
        self.detach()
        report = self._report()
        self._held, self._scratch = [], None
        self._finished = True
        return report

    def _decide_last(self) -> None:
        """Decide at the final sparsity, where the last step has not."""
        end = self._moment(self.total_steps)
        settled = self.recipe.budget.settled(end)
        last = self._updates[-1] if self._updates else None
        if not last or (last.step, last.target, last.settled) != (self.step, end.final, settled):
            self.recipe.score.check(self.step)
            self._decide(end)
            self._write(end, updated=True)
        if not settled and abs(self.pruned / self.prunable - end.final) > NEAR:
            warnings.warn(
                f"training ended at sparsity {self.pruned / self.prunable:.4f}, not {end.final:g}: "
                f"this recipe leaves the sparsity as it comes. {_FASTER}; or set budget.settle for "
                "the exact count",
                SenteiWarning,
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the weights: plain values and tensors, no copies.

        Pass it to :meth:`load_state_dict` of a pruner with the same model, recipe and steps; the
        run then continues bit for bit.
        """
        if not self._held:
            self._allocate()
        self._rest()
        return {
            "format": STATE_FORMAT,
            "recipe": recipes.to_dict(self.recipe),
            "total_steps": self.total_steps,
            "step": self.step,
            "pruned": self.pruned,
            "settled": self._settled,
            "weights": self._checksum(),
            "brackets": {str(i): [b.low, b.high, b.threshold] for i, b in self._brackets.items()},
            "updates": [update.model_dump() for update in self._updates],
            "masks": self.masks,
            "memory": {held.site.name: held.memory for held in self._held},
            "budget": self._budget,
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
        new = recipes.to_dict(self.recipe)
        difference = states.first_difference(state["recipe"], new, "recipe")
        if difference is None and state["total_steps"] != self.total_steps:
            difference = f"total_steps was {state['total_steps']}, is {self.total_steps}"
        difference = difference or self._scope_difference(state["masks"])
        difference = difference or self._memory_difference(state["memory"])
        if difference:
            raise ValueError(f"cannot resume: {difference}")
        if not self._held:
            self._allocate()
        for held in self._held:
            held.keep.copy_(state["masks"][held.site.name])
            for name, tensor in held.memory.items():
                tensor.copy_(state["memory"][held.site.name][name])
        for name, tensor in self._budget.items():
            tensor.copy_(state["budget"][name])
        self.step = state["step"]
        self.pruned = state["pruned"]
        self._settled = state["settled"]
        self._expected_weights = state["weights"]
        self._brackets = {int(i): Bracket(*ends) for i, ends in state["brackets"].items()}
        self._updates = [UpdateRecord(**update) for update in state["updates"]]
        self._groups, self._scores_changed, self._versions = (), True, []

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
        self._skipping = _overflowed(optimizer)
        if self._skipping:
            self._rest()
        if self._skipping or self._idle:
            return
        self._check_weights()
        _unscale_(optimizer)
        if self._reads_gradient and next(iter(args[1:]), kwargs.get("closure")) is not None:
            raise ValueError(
                "this recipe reads or changes gradients before the optimizer's step, but a closure "
                "computes them inside: step without a closure, or (if its score is why) use "
                "score.iterate='new'"
            )
        if any(isinstance(penalty, ProximalPenalty) for penalty in self.recipe.penalties):
            groups = optimizer.param_groups
            self._lr = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
        if self._reads_gradient:
            self._work_on_gradients(self._moment(self.step + 1, decision=self.step))
        if isinstance(self.recipe.mask, Latent):
            for held in self._held:
                held.swap()

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
        moment = self._moment(self.step)
        if isinstance(self.recipe.mask, Latent):
            for held in self._held:
                held.swap()
        self._shrink(moment)
        score = self.recipe.score
        if score.observes and score.observes_new:
            self._observe(self.step)
        self._scores_changed |= score.changes_at(self.step)
        if self.recipe.schedule.is_update(self.step, self.total_steps):
            if isinstance(self.recipe.mask, Project):
                self._write(moment, updated=False)  # a held weight is zero when it is ranked
            self._decide(moment)
            self._write(moment, updated=True)
        else:
            self._write(moment, updated=False)

    @property
    def _reads_gradient(self) -> bool:
        """Whether anything happens to gradients before the optimizer's step."""
        recipe = self.recipe
        return (
            isinstance(recipe.mask, Latent)
            or (recipe.score.observes and not recipe.score.observes_new)
            or any(isinstance(penalty, WeightPenalty) for penalty in recipe.penalties)
        )

    def _work_on_gradients(self, moment: Moment) -> None:
        """Observe; form a latent mask's gradients; add the penalties'; train scores and ratios."""
        score, mask, budget = self.recipe.score, self.recipe.mask, self.recipe.budget
        on_weights = [p for p in self.recipe.penalties if isinstance(p, WeightPenalty)]
        on_scores = [p for p in self.recipe.penalties if isinstance(p, ScorePenalty)]
        learns = budget.learned and not self._settled
        kept = torch.zeros(len(self._held), dtype=torch.float64)
        for held in self._held:
            gradients = _gradient(held.site, moment.step)
            share = 1 / (len(self._held) * gradients.numel())
            total = torch.zeros((), dtype=_score_dtype(held.weight), device=held.weight.device)
            for memory, dense, gradient, keep, scratch in self._pieces(held, gradients):
                if score.observes and not score.observes_new:
                    score.observe_(memory, dense, gradient, moment.step, scratch)
                if isinstance(mask, Latent):
                    scores = memory.get("score")
                    noise = memory.get("noise") if self._sampled else None
                    if isinstance(score, Learned):
                        assert scores is not None
                        mask.score_gradient_(scratch, gradient, dense, scores, noise)
                        for penalty in on_scores:
                            penalty.add_(scratch, scores, share, moment)
                        score.learn_(memory, scratch, moment)
                    mask.weight_gradient_(gradient, keep, scores, noise)
                    if learns:
                        total += torch.dot(gradient.to(total.dtype), dense.to(total.dtype))
                for prior in on_weights:
                    prior.add_(gradient, dense, moment, scratch)
            kept[held.number] = total
        if learns and isinstance(budget, LearnedRatio):
            sizes = torch.tensor(self._sizes, dtype=torch.float64)
            ratios = budget.ratios(self._budget)
            pull = torch.zeros_like(ratios)
            for term in self.recipe.penalties:
                if isinstance(term, RatioPenalty):
                    pull += term.gradient(ratios, sizes, moment)
            budget.learn_(self._budget, kept, pull, moment)

    def _observe(self, step: int) -> None:
        for held in self._held:
            gradients = _gradient(held.site, step)
            for memory, dense, gradient, _, scratch in self._pieces(held, gradients):
                self.recipe.score.observe_(memory, dense, gradient, step, scratch)

    def _shrink(self, moment: Moment) -> None:
        proximal = [p for p in self.recipe.penalties if isinstance(p, ProximalPenalty)]
        for held in self._held if proximal else ():
            lr = self._lr[id(held.site.parameter)]
            for _, dense, _, _, scratch in self._pieces(held, held.weight):
                for penalty in proximal:
                    penalty.shrink_(dense, lr, moment, scratch)

    def _pieces(
        self, held: Held, beside: Tensor
    ) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor, Tensor, Tensor]]:
        """Flat pieces of memory, dense weight, the tensor given, mask, and free scratch."""
        memory = {name: tensor.view(-1) for name, tensor in held.memory.items()}
        dense, beside, keep = held.dense.view(-1), beside.view(-1), held.keep.view(-1)
        for start, stop in spans(dense.numel(), dense.device):
            yield (
                {name: tensor[start:stop] for name, tensor in memory.items()},
                dense[start:stop],
                beside[start:stop],
                keep[start:stop],
                self._scratch_for(dense, stop - start),
            )

    @torch.no_grad()
    def _write(self, moment: Moment, *, updated: bool) -> None:
        """Make the weights sparse."""
        mask = self.recipe.mask
        if isinstance(mask, Project) and not (updated or mask.holds(moment)):
            return
        for held in self._held:
            for memory, dense, weight, keep, _ in self._pieces(held, held.weight):
                if isinstance(mask, Latent):
                    mask.write_(weight, dense, keep, memory.get("score"))
                elif isinstance(mask, Project):
                    mask.write_(weight, keep)
        self._sampled = False
        self._draw()
        if isinstance(mask, Latent):
            self._versions = [held.site.parameter._version for held in self._held]

    @torch.no_grad()
    def _before_forward(self, module: nn.Module, args: Any) -> None:
        """Write a sample of stochastic weights in training, the deterministic ones otherwise."""
        mask = self.recipe.mask
        if not module.training or self._settled or self._idle:
            self._rest()
            return
        if self._sampled or not isinstance(mask, HardConcrete):
            return
        self._check_weights()
        for held in self._held:
            for memory, dense, weight, _, _ in self._pieces(held, held.weight):
                mask.sample_(weight, dense, memory["score"], memory["noise"])
        self._sampled = True

    def _draw(self) -> None:
        """Draw the noise of the step to come."""
        mask = self.recipe.mask
        if isinstance(mask, HardConcrete) and not self._settled:
            for held in self._held:
                mask.draw_(held.memory["noise"], self.step, held.number)

    def _before_saving(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._rest()

    def _rest(self) -> None:
        """Leave the deterministic weights in the module."""
        if self._sampled:
            self._write(self._moment(self.step), updated=False)

    def _check_weights(self) -> None:
        """Refuse weights that somebody else has exchanged since the last step."""
        if self._expected_weights is not None and self._expected_weights != self._checksum():
            raise ValueError(
                f"cannot resume at step {self.step}: {self._sites[0].name} is not what it was when "
                "the pruner's state was saved; load the model's weights of the same checkpoint"
            )
        self._expected_weights = None
        for held, version in zip(self._held, self._versions, strict=False):
            if held.site.parameter._version != version:
                raise ValueError(
                    f"{held.site.name} was written to between two steps of the optimizer, and this "
                    "recipe would undo it, because it keeps the dense weights aside: load weights "
                    "before pruner.attach, or with pruner.load_state_dict"
                )

    @torch.no_grad()
    def _decide(self, moment: Moment) -> None:
        budget = self.recipe.budget
        settled = budget.settled(moment)
        if settled and not self._settled and isinstance(budget, Emergent):
            self._check_near(moment)
        self._settled = settled
        groups = budget.split(self._sizes, moment, self._budget)
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
                target=moment.sparsity,
                pruned=self.pruned,
                settled=settled,
                flips=flips,
                overlap=(self.prunable - either) / kept_by_either if kept_by_either else 1.0,
                threshold=threshold,
            )
        )

    def _check_near(self, moment: Moment) -> None:
        if abs(moment.reached - moment.sparsity) > NEAR:
            warnings.warn(
                f"at step {self.step} of {self.total_steps} the learned sparsity had reached "
                f"{moment.reached:.4f}, not {moment.sparsity:g}: the count is fixed at once, by "
                f"score. {_FASTER}",
                SenteiWarning,
                stacklevel=2,
            )

    def _cut(self, number: int, group: Group) -> tuple[Cut, int]:
        scores = [self._scores(site) for site in group.sites]
        try:
            cut = cut_at(scores, group.threshold) if group.threshold is not None else None
            if cut is None or cut.below + cut.ties > group.count:
                bracket = self._brackets.get(number)
                cut, self._brackets[number] = find_cut(scores, group.count, bracket)
            if group.strict:
                cut = Cut(cut.threshold, cut.below, 0)
            return cut, prune_([self._held[site].keep for site in group.sites], scores, cut)
        except FloatingPointError as error:
            bad = [h.site.name for h in self._held if not torch.isfinite(h.dense).all()]
            where = f"{bad[0]} is not finite" if bad else "the weights are finite, a score is not"
            raise FloatingPointError(
                f"pruning cannot rank the weights at step {self.step}: {error} ({where}). Training "
                "has probably diverged: lower the learning rate; the last checkpoint is untouched"
            ) from error

    def _scores(self, index: int) -> Scores:
        held = self._held[index]
        weight = held.dense.view(-1)
        memory = {name: tensor.view(-1) for name, tensor in held.memory.items()}

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
        names = (*self.recipe.score.memory, *self.recipe.mask.memory)
        for number, site in enumerate(self._sites):
            weight = site.parameter.data
            held = Held(site, number, torch.ones_like(weight, dtype=torch.bool))
            for name in names:
                held.memory[name] = (
                    weight.clone()
                    if name == "latent"
                    else torch.zeros_like(weight, dtype=_score_dtype(weight))
                )
            self.recipe.score.start_(held.memory, weight, number)
            self._held.append(held)
        self._draw()

    def _checksum(self) -> int:
        """Of the first site's bytes: tells one checkpoint's weights from another's."""
        weight = self._sites[0].parameter.detach().cpu()
        return zlib.crc32(weight.view(-1).view(torch.uint8).numpy().data)

    def _memory_difference(self, saved: Mapping[str, Mapping[str, Tensor]]) -> str | None:
        for site in self._sites:
            for name in (*self.recipe.score.memory, *self.recipe.mask.memory):
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
            [held.weight for held in self._held],
            [held.keep for held in self._held],
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


def _gradient(site: Site, step: int) -> Tensor:
    """The gradient of a site, contiguous, its own and not a copy."""
    gradient = site.parameter.grad
    if gradient is None:
        raise ValueError(
            f"{site.name} has no gradient at step {step}, and this recipe needs one: exclude "
            "it from the scope if the loss does not reach it; with iterate='new', zero "
            "gradients after the optimizer's step, not inside it"
        )
    if not gradient.is_contiguous():
        gradient = site.parameter.grad = gradient.contiguous()
    return gradient


_FASTER = (
    "Train longer, raise the penalty's coefficient, or raise the learning rate of scores or ratios "
    "(score.optimizer.lr, budget.optimizer.lr)"
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
