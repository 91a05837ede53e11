"""What the pruner keeps beside the weights, and the work on it: observe, learn, decide, write.

Everything runs over cache-sized pieces, site by site, in place. When each thing is done is the
pruner's affair; a :class:`~sentei.parts.part.Moment` tells the parts where training is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sentei.messages import SenteiWarning
from sentei.parts.budget import Emergent, Group, LearnedRatio
from sentei.parts.masks import Gated, HardConcrete
from sentei.parts.part import Moment
from sentei.parts.patterns import Units, protect_
from sentei.parts.penalties import ProximalPenalty, RatioPenalty, ScorePenalty, WeightPenalty
from sentei.parts.scores import Learned
from sentei.parts.site import Site
from sentei.pruning.cut import Bracket, Cut, cut_at, find_cut, prune_
from sentei.recipe import Recipe
from sentei.records import UpdateRecord
from sentei.tensors import Scores, score_dtype, spans

NEAR = 0.005
"""How far from the sparsity asked for a learned one may end without a warning."""

FASTER = (
    "Train longer, raise the penalty's coefficient, or raise the learning rate of scores or ratios "
    "(score.optimizer.lr, budget.optimizer.lr)"
)


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


@dataclass
class Ranked:
    """What is kept of units that are ranked: which of them are kept, and memory with their shape.

    Where units are single weights, the tensors are those of their site.
    """

    units: Units
    keep: Tensor
    memory: dict[str, Tensor]


@dataclass(frozen=True)
class Piece:
    """Flat slices of one site, of one size: its dense weight, its mask, its memory, scratch."""

    dense: Tensor
    keep: Tensor
    memory: dict[str, Tensor]
    scratch: Tensor
    span: slice

    def of(self, tensor: Tensor) -> Tensor:
        """The same slice of another tensor of the site."""
        return tensor.view(-1)[self.span]


class Engine:
    """The state of one pruning, and what is done to it.

    Args:
        sites: The prunable weights; their parameters are changed in place.
        units: What decisions are about; each site belongs to one of them.
        recipe: What to do.
        total: Optimizer steps of training.
    """

    def __init__(
        self, sites: Sequence[Site], units: Sequence[Units], recipe: Recipe, total: int
    ) -> None:
        self.recipe = recipe
        self.sites = sites
        self.units = units
        self.held: list[Held] = []
        self.ranked: list[Ranked] = []
        counts = [made.count for made in units]
        self.budget = recipe.budget.start(counts, total, recipe.schedule.sparsity)
        self.pruned = 0
        self.settled = False
        self.sampled = False
        """Whether the module holds a random sample of its weights now."""
        self.from_sample = False
        """Whether the gradients of the step under way come from one."""
        self.swapped = False
        """Whether the module holds the latent weights, as it does in the optimizer's step."""
        self.updates: list[UpdateRecord] = []
        self.brackets: dict[int, Bracket] = {}
        self._groups: tuple[Group, ...] = ()
        self._scores_changed = True
        self._scratch: Tensor | None = None

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(made.count * made.weights for made in self.units)

    @property
    def reads_gradient(self) -> bool:
        """Whether :meth:`learn` has anything to do."""
        recipe = self.recipe
        return (
            isinstance(recipe.mask, Gated)
            or (recipe.score.observes and not recipe.score.observes_new)
            or any(isinstance(penalty, WeightPenalty) for penalty in recipe.penalties)
        )

    @property
    def shrinks(self) -> bool:
        """Whether :meth:`shrink` has anything to do."""
        return any(isinstance(penalty, ProximalPenalty) for penalty in self.recipe.penalties)

    def allocate(self) -> None:
        """Make the memory, from the weights as they are now; once."""
        if self.held:
            return
        score, mask = self.recipe.score, self.recipe.mask
        per_unit = (*score.per_unit, *mask.per_unit)
        pooled = {site for made in self.units if made.pooled for site in made.sites}
        for number, site in enumerate(self.sites):
            weight = site.parameter.data
            held = Held(site, number, torch.ones_like(weight, dtype=torch.bool))
            for name in (*score.memory, *mask.memory):
                if number in pooled and name in per_unit:
                    continue
                held.memory[name] = (
                    weight.clone()
                    if name == "latent"
                    else torch.zeros_like(weight, dtype=score_dtype(weight))
                )
            if not (number in pooled and score.per_unit):
                score.start_(held.memory, weight, number)
            self.held.append(held)
        for number, made in enumerate(self.units):
            held = self.held[made.sites[0]]
            if made.pooled:
                keep = torch.ones(made.count, dtype=torch.bool, device=held.weight.device)
                dtype = score_dtype(held.weight)
                memory = {name: torch.zeros_like(keep, dtype=dtype) for name in per_unit}
                if score.per_unit:
                    score.start_(memory, keep, number)
            else:
                keep = held.keep.view(-1)
                memory = {name: held.memory[name].view(-1) for name in per_unit}
            self.ranked.append(Ranked(made, keep, memory))
        self._draw(0)

    def release(self) -> None:
        """Drop the memory."""
        self.held, self.ranked, self._scratch = [], [], None

    # Before the optimizer's step.

    def learn(self, moment: Moment) -> None:
        """Observe; form a latent mask's gradients; train scores and ratios; add penalties'."""
        kept = [self._learn_units(ranked, moment) for ranked in self.ranked]
        budget = self.recipe.budget
        if isinstance(budget, LearnedRatio) and not self.settled:
            weights = [made.count * made.weights for made in self.units]
            sizes = torch.tensor(weights, dtype=torch.float64)
            ratios = budget.ratios(self.budget)
            pull = torch.zeros_like(ratios)
            for penalty in self.recipe.penalties:
                if isinstance(penalty, RatioPenalty):
                    pull += penalty.gradient(ratios, sizes, moment)
            budget.learn_(self.budget, torch.stack([k.cpu() for k in kept]).double(), pull, moment)

    def _learn_units(self, ranked: Ranked, moment: Moment) -> Tensor:
        """Return the sum of the mask's gradient over what is kept, if a budget learns from it."""
        score, made = self.recipe.score, ranked.units
        on_scores = [
            (p, 1 / (sum(p.covers(other.kind) for other in self.units) * made.count))
            for p in self.recipe.penalties
            if isinstance(p, ScorePenalty) and p.covers(made.kind)
        ]
        on_weights = [p for p in self.recipe.penalties if isinstance(p, WeightPenalty)]

        def train(memory: dict[str, Tensor], gradient: Tensor) -> None:
            assert isinstance(score, Learned)
            for penalty, share in on_scores:
                penalty.add_(gradient, memory["score"], share, moment)
            score.learn_(memory, gradient, moment)

        pooled = made.pooled and score.learned
        gradients, kept = dict[int, Tensor](), []
        for number in made.sites:
            held = self.held[number]
            if pooled:
                gradients[number] = torch.empty_like(held.weight, dtype=score_dtype(held.weight))
            whole = _gradient(held.site, moment.step)
            for piece in self._pieces(held):
                gradient = piece.of(whole)
                kept.append(self._form_gradients(piece, gradient, moment))
                if pooled:
                    piece.of(gradients[number]).copy_(piece.scratch)
                elif score.learned:  # last: gates are those of the forward pass
                    train(piece.memory, piece.scratch)
                for prior in on_weights:
                    prior.add_(gradient, piece.dense, moment, piece.scratch)
        if pooled:
            train(ranked.memory, made.pool(gradients, "sum"))
        return torch.stack(kept).sum()

    def _form_gradients(self, piece: Piece, gradient: Tensor, moment: Moment) -> Tensor:
        """Turn ``gradient`` into the latent weights' and leave the scores' in the scratch.

        Return the sum of the mask's gradient over what is kept, if a budget learns from it.
        """
        score, mask, scratch = self.recipe.score, self.recipe.mask, piece.scratch
        kept = torch.zeros((), dtype=scratch.dtype, device=scratch.device)
        if score.observes and not score.observes_new:
            score.observe_(piece.memory, piece.dense, gradient, moment.step, scratch)
        if not isinstance(mask, Gated):
            return kept
        if score.learned:
            mask.score_gradient_(scratch, gradient, piece.dense, piece.memory, self.from_sample)
        mask.weight_gradient_(gradient, piece.keep, piece.memory, self.from_sample)
        if self.recipe.budget.learned and not self.settled:
            return torch.dot(gradient.to(kept.dtype), piece.dense.to(kept.dtype))
        return kept

    def swap(self) -> None:
        """Exchange the module's weights with the latent ones, if there are any."""
        if isinstance(self.recipe.mask, Gated):
            self.swapped = not self.swapped
            for held in self.held:
                held.swap()

    # After the optimizer's step.

    def observe(self, step: int) -> None:
        """Let the score see the weights that the step has made."""
        for held in self.held:
            gradients = _gradient(held.site, step)
            for piece in self._pieces(held):
                self.recipe.score.observe_(
                    piece.memory, piece.dense, piece.of(gradients), step, piece.scratch
                )

    def note_step(self, step: int) -> None:
        """Remember whether the scores have changed since the last decision."""
        self._scores_changed |= self.recipe.score.changes_at(step)

    def shrink(self, lr: Mapping[int, float], moment: Moment) -> None:
        """Apply proximal penalties; ``lr`` is the learning rate of every parameter, by its id."""
        proximal = [p for p in self.recipe.penalties if isinstance(p, ProximalPenalty)]
        for held in self.held:
            for piece in self._pieces(held):
                for penalty in proximal:
                    penalty.shrink_(piece.dense, lr[id(held.site.parameter)], moment, piece.scratch)

    def write(self, moment: Moment, *, updated: bool) -> None:
        """Make the module's weights sparse; ``updated`` says that a decision has just been made."""
        mask = self.recipe.mask
        if not (updated or mask.holds(moment)):
            return
        for held in self.held:
            for piece in self._pieces(held):
                weight = piece.of(held.weight)
                if moment.step:
                    mask.write_(weight, piece.dense, piece.keep, piece.memory)
                else:  # nothing has been decided yet
                    weight.copy_(piece.dense)
        self.sampled = False
        self._draw(moment.step)

    def _draw(self, step: int) -> None:
        """Draw the noise of the step after ``step``, where gates are stochastic."""
        mask = self.recipe.mask
        if isinstance(mask, HardConcrete) and not self.settled:
            for number, ranked in enumerate(self.ranked):
                mask.draw_(ranked.memory["noise"], step, number)

    def sample(self) -> None:
        """Write a sample of stochastic weights into the module, for training."""
        mask = self.recipe.mask
        if self.sampled or self.settled or not isinstance(mask, HardConcrete):
            return
        for held in self.held:
            for piece in self._pieces(held):
                mask.sample_(piece.of(held.weight), piece.dense, piece.memory)
        self.sampled = self.from_sample = True

    def decide(self, moment: Moment, step: int) -> None:
        """Choose the weights to keep, and record the decision as made at ``step``."""
        budget = self.recipe.budget
        settled = budget.settled(moment)
        if settled and not self.settled and isinstance(budget, Emergent):
            self._check_near(moment)
        self.settled = settled
        groups = self._split(moment)
        before, flips = self.pruned, 0
        threshold = self.updates[-1].threshold if self.updates else None
        if self._scores_changed or groups != self._groups:
            cuts = []
            self.pruned = 0
            for number, group in enumerate(groups):
                cut, pruned, changed = self._cut(number, group, step)
                cuts.append(cut)
                self.pruned += pruned
                flips += changed
            threshold = cuts[0].threshold if len(cuts) == 1 and self.pruned else None
            if settled and isinstance(self.recipe.mask, HardConcrete):
                for ranked in self.ranked:
                    self.recipe.mask.open_(ranked.keep, ranked.memory)
        self._groups, self._scores_changed = groups, False
        either = (before + self.pruned + flips) // 2
        both = (before + self.pruned - flips) // 2
        kept_by_either = self.prunable - both
        self.updates.append(
            UpdateRecord(
                step=step,
                target=moment.sparsity,
                pruned=self.pruned,
                settled=settled,
                flips=flips,
                overlap=(self.prunable - either) / kept_by_either if kept_by_either else 1.0,
                threshold=threshold,
            )
        )

    def _split(self, moment: Moment) -> tuple[Group, ...]:
        """The budget's groups, among units of one kind and size unless it mixes them."""
        budget = self.recipe.budget
        mixes = budget.mixes(moment) and all(made.pooled for made in self.units)
        alike: dict[tuple[str, int], list[int]] = {}
        for place, made in enumerate(self.units):
            alike.setdefault(("", 0) if mixes else (made.kind, made.weights), []).append(place)
        groups: list[Group] = []
        for places in alike.values():
            units = [self.units[place] for place in places]
            counts = [made.count for made in units]
            weights = [made.weights for made in units] if mixes else ()
            state = {name: tensor[places] for name, tensor in self.budget.items()}
            for group in budget.split(counts, moment, state, weights):
                groups.append(replace(group, sites=tuple(places[i] for i in group.sites)))
        return tuple(groups)

    def _check_near(self, moment: Moment) -> None:
        if abs(moment.reached - moment.sparsity) > NEAR:
            warnings.warn(
                f"at step {moment.step} of {moment.total} the learned sparsity had reached "
                f"{moment.reached:.4f}, not {moment.sparsity:g}: the count is fixed at once, by "
                f"score. {FASTER}",
                SenteiWarning,
                stacklevel=2,
            )

    def _cut(self, number: int, group: Group, step: int) -> tuple[Cut, int, int]:
        """Cut a group and write its masks.

        Return the cut, how many weights it prunes, and how many changed sides.
        """
        ranked = [self.ranked[place] for place in group.sites]
        before = [one.keep.clone() for one in ranked] if group.of_weights else []
        try:
            scores = [self._candidates(place) for place in group.sites]
            count = _reaching(scores, ranked, group.count) if group.of_weights else group.count
            cut = cut_at(scores, group.threshold) if group.threshold is not None else None
            if cut is None or cut.below + cut.ties > count:
                bracket = self.brackets.get(number)
                cut, self.brackets[number] = find_cut(scores, count, bracket)
            if group.strict:
                cut = Cut(cut.threshold, cut.below, 0)
            flips = prune_([one.keep for one in ranked], scores, cut)
        except FloatingPointError as error:
            bad = [h.site.name for h in self.held if not torch.isfinite(h.dense).all()]
            where = f"{bad[0]} is not finite" if bad else "the weights are finite, a score is not"
            raise FloatingPointError(
                f"pruning cannot rank the weights at step {step}: {error} ({where}). Training "
                "has probably diverged: lower the learning rate; the last checkpoint is untouched"
            ) from error
        for one in ranked:
            if one.units.pooled:
                for tiles in one.units.tiles:
                    tiles.write_(self.held[tiles.site].keep, one.keep)
        if group.of_weights:
            pairs = list(zip(ranked, before, strict=True))
            pruned = sum(int((~one.keep).sum()) * one.units.weights for one in ranked)
            return cut, pruned, sum(int((a.keep != b).sum()) * a.units.weights for a, b in pairs)
        weights = ranked[0].units.weights if ranked else 1
        return cut, (cut.below + cut.ties) * weights, flips * weights

    def _candidates(self, place: int) -> Scores:
        """The scores of units, infinite where the pattern forbids to prune."""
        scores, n_m = self.scores(place), self.units[place].n_m
        if n_m is None:
            return scores
        keep, of = n_m

        def read(start: int, stop: int) -> Tensor:
            first, last = start // of * of, -(-stop // of) * of
            values = scores.read(first, last).clone()
            if values.isnan().any():  # no comparison would notice, and too few would be protected
                raise FloatingPointError("a score is NaN")
            protect_(values, keep, of)
            return values[start - first : stop - first]

        return Scores(scores.size, scores.device, read)

    def scores(self, place: int) -> Scores:
        """The scores of units, readable in pieces."""
        made = self.units[place]
        if made.pooled:
            pooled = self._pooled_scores(self.ranked[place])
            return Scores(made.count, pooled.device, lambda start, stop: pooled[start:stop])
        held = self.held[made.sites[0]]
        weight = held.dense.view(-1)
        memory = {name: tensor.view(-1) for name, tensor in held.memory.items()}

        def read(start: int, stop: int) -> Tensor:
            pieces = {name: tensor[start:stop] for name, tensor in memory.items()}
            out = self._scratch_for(weight, stop - start)
            return self.recipe.score.value(pieces, weight[start:stop], out)

        return Scores(weight.numel(), weight.device, read)

    def _pooled_scores(self, ranked: Ranked) -> Tensor:
        score, made = self.recipe.score, ranked.units
        if score.per_unit:
            return score.value(ranked.memory, ranked.keep, ranked.keep)
        values = {}
        for site in made.sites:
            held = self.held[site]
            out = torch.empty_like(held.weight, dtype=score_dtype(held.weight))
            for piece in self._pieces(held):
                part = piece.of(out)
                part.copy_(score.value(piece.memory, piece.dense, part))
            values[site] = out
        return made.pool(values, made.reduce)

    # State.

    def tensors(self) -> dict[str, Any]:
        """Masks, memory and the budget's state: the engine's own tensors, by name."""
        return {
            "masks": {held.site.name: held.keep for held in self.held},
            "memory": {held.site.name: held.memory for held in self.held},
            "units": {
                f"{one.units.kind} {one.units.name}": {"keep": one.keep, **one.memory}
                for one in self.ranked
                if one.units.pooled
            },
            "budget": self.budget,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over :meth:`tensors` of another run, copied."""
        for held in self.held:
            held.keep.copy_(state["masks"][held.site.name])
            for name, tensor in held.memory.items():
                tensor.copy_(state["memory"][held.site.name][name])
        for name, tensors in self.tensors()["units"].items():
            for kind, tensor in tensors.items():
                tensor.copy_(state["units"][name][kind])
        for name, tensor in self.budget.items():
            tensor.copy_(state["budget"][name])
        self._groups, self._scores_changed = (), True
        self.sampled = self.from_sample = False

    def difference(self, state: Mapping[str, Any]) -> str | None:
        """Why :meth:`tensors` of another run do not fit, naming the first site; None if they do."""
        shapes = {site.name: tuple(site.parameter.shape) for site in self.sites}
        for name, mask in state["masks"].items():
            if name not in shapes:
                return f"{name} was pruned and is not in the scope now"
            if tuple(mask.shape) != shapes[name]:
                return f"{name} was {tuple(mask.shape)} and is {shapes[name]} now"
        for name in shapes:
            if name not in state["masks"]:
                return f"{name} is in the scope now and was not pruned"
        for held in self.held:
            for tensor in held.memory:
                if tensor not in state["memory"].get(held.site.name, {}):
                    return f"the saved state has no {tensor} of {held.site.name}"
        for name, tensors in self.tensors()["units"].items():
            for kind, tensor in tensors.items():
                saved = state["units"].get(name, {}).get(kind)
                if saved is None:
                    return f"the saved state has no {kind} of the units {name}"
                if saved.shape != tensor.shape:
                    return f"{name} had {saved.numel()} units and has {tensor.numel()} now"
        return next(
            (f"the saved state has no {n}" for n in self.budget if n not in state["budget"]), None
        )

    def _pieces(self, held: Held) -> Iterator[Piece]:
        memory = {name: tensor.view(-1) for name, tensor in held.memory.items()}
        memory |= self._spread(held)
        dense, keep = held.dense.view(-1), held.keep.view(-1)
        for start, stop in spans(dense.numel(), dense.device):
            yield Piece(
                dense=dense[start:stop],
                keep=keep[start:stop],
                memory={name: tensor[start:stop] for name, tensor in memory.items()},
                scratch=self._scratch_for(dense, stop - start),
                span=slice(start, stop),
            )

    def _spread(self, held: Held) -> dict[str, Tensor]:
        """What a gate reads of its unit, for every weight of a site."""
        mask, spread = self.recipe.mask, dict[str, Tensor]()
        if not isinstance(mask, Gated) or "score" in held.memory or not mask.reads:
            return spread
        for one in self.ranked:
            for tiles in one.units.tiles:
                if tiles.site != held.number:
                    continue
                for name in mask.reads:
                    empty = torch.zeros_like(held.weight, dtype=one.memory[name].dtype)
                    tiles.write_(spread.setdefault(name, empty), one.memory[name])
        return {name: tensor.view(-1) for name, tensor in spread.items()}

    def _scratch_for(self, weight: Tensor, size: int) -> Tensor:
        """A buffer of ``size`` scores beside ``weight``: one allocation, reused."""
        dtype = score_dtype(weight)
        scratch = self._scratch
        if scratch is None or scratch.numel() < size or scratch.dtype != dtype:
            scratch = self._scratch = torch.empty(size, dtype=dtype, device=weight.device)
        elif scratch.device != weight.device:
            scratch = self._scratch = torch.empty(size, dtype=dtype, device=weight.device)
        return scratch[:size]


def _reaching(scores: Sequence[Scores], ranked: Sequence[Ranked], weights: int) -> int:
    """How many of the lowest units hold ``weights`` weights or more, and no fewer do.

    Units are far fewer than weights, so that they are gathered.
    """
    values = torch.cat([piece.cpu().clone() for one in scores for _, _, piece in one.pieces()])
    if values.isnan().any():
        raise FloatingPointError("a score is NaN")
    sizes = torch.cat([torch.full((one.units.count,), one.units.weights) for one in ranked])
    held = sizes[values.argsort(stable=True)].cumsum(0)
    return int(torch.searchsorted(held, weights)) + 1 if weights else 0


def _gradient(site: Site, step: int) -> Tensor:
    """The gradient of a site: contiguous, and the parameter's own, to be written to."""
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
