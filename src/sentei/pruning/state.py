"""What is kept beside the weights: masks, memory, latent weights; saved and loaded here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sentei import serialization
from sentei.distributed import Ranks, processes
from sentei.parts.budget import Quota
from sentei.parts.patterns import UnitGroup
from sentei.parts.progress import Progress
from sentei.parts.site import Site
from sentei.pruning.buffers import Buffer, lay_out
from sentei.pruning.cut import Bracket
from sentei.pruning.inputs import InputState
from sentei.pruning.later import Learning, Pending
from sentei.pruning.saved import (
    Shares,
    checksum,
    copy_,
    first_difference,
    first_of,
    miscounted,
    name_of,
    other_dtype,
    other_length,
    other_tensors,
    parse,
)
from sentei.pruning.shards import spread, whole_memory
from sentei.pruning.sites import Piece, SiteState, UnitState
from sentei.pruning.widened import Widened, is_narrow, widened
from sentei.recipe import Fitted, Recipe
from sentei.records import UpdateRecord
from sentei.sharded import like, local, shard_of
from sentei.tensors import cut_up, score_dtype, spans

FORMAT = 7
"""Of :meth:`PruningState.to_dict`."""


@dataclass
class PruningState:
    """All that one pruning knows besides the weights.

    ``watched`` are the sites whose inputs are observed. ``sites``, ``units`` and ``inputs`` are
    empty until :meth:`allocate`; so are ``buffers``, and for good where sites lie in none.
    ``pending`` is the latest decision until its numbers are in ``updates``. ``scores_changed`` says
    whether scores may differ from those of the latest decision, whose quotas ``quotas`` are.
    """

    fitted: Fitted
    total_steps: int
    watched: Sequence[Site] = ()
    step: int = 0
    pruned: int = 0
    settled: bool = False
    sites: dict[Site, SiteState] = field(default_factory=dict)
    units: list[UnitState] = field(default_factory=list)
    inputs: dict[Site, InputState] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    pending: Pending | None = None
    learning: Learning | None = None
    updates: list[UpdateRecord] = field(default_factory=list)
    brackets: dict[int, Bracket] = field(default_factory=dict)
    quotas: tuple[Quota, ...] = ()
    scores_changed: bool = True
    _scratch: Tensor | None = None

    def __post_init__(self) -> None:
        self.recipe: Recipe = self.fitted.recipe
        counts = [group.count for group in self.groups]
        sparsity = self.recipe.schedule.sparsity
        self.budget = self.recipe.budget.start(counts, self.total_steps, sparsity)
        self.ranks = Ranks([site.parameter for site in self.selected])

    @property
    def groups(self) -> Sequence[UnitGroup]:
        """The units that decisions are about."""
        return self.fitted.groups

    @property
    def selected(self) -> Sequence[Site]:
        """The prunable weights."""
        return self.fitted.selection.sites

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(group.count * group.weights for group in self.groups)

    def progress(self, step: int, decision: int | None = None) -> Progress:
        """Where training is at ``step``; ``decision`` is the step whose target holds."""
        schedule, total = self.recipe.schedule, self.total_steps
        return Progress(
            step=step,
            total=total,
            sparsity=schedule.at(step if decision is None else decision, total),
            final=schedule.sparsity,
            reached=self.pruned / self.prunable,
            ramp=schedule.ramp(step, total),
        )

    @property
    def decided(self) -> int | None:
        """The step of the latest decision."""
        if self.pending:
            return self.pending.step
        return self.updates[-1].step if self.updates else None

    def ratios(self) -> dict[str, float]:
        """Kept ratio by name of a place, where they are learned; by its pattern too, where several
        share one.
        """
        ratios, groups = self.recipe.budget.ratios(self.budget), self.groups
        if ratios is None:
            return {}
        several = len({group.name for group in groups}) < len(groups)
        names = [f"{group.pattern} {group.name}" if several else group.name for group in groups]
        return dict(zip(names, ratios.tolist(), strict=True))

    # Memory.

    def allocate(self) -> None:
        """Make the memory, from the weights as they are now; once."""
        if self.sites:
            return
        score, mask = self.recipe.score, self.recipe.mask
        pooled = {site for group in self.groups if group.pooled for site in group.sites}
        self.buffers, rows = lay_out(self.fitted)
        for number, (site, row) in enumerate(rows.items()):
            weight, shard = local(site.parameter), shard_of(site.parameter)
            state = SiteState(site, row.keep, row.memory, gated=row.gated, shard=shard)
            with whole_memory(state.memory, shard) as memory:
                if not (site in pooled and score.per_unit):
                    score.start_(memory, shard.whole(weight) if shard else weight, number)
                if not (site in pooled and mask.per_unit):
                    mask.start_(memory, number)
            if row.latent is not None:
                state.latent = row.latent.copy_(weight)
            self.sites[site] = state
        self.units = [self._unit_state(number, group) for number, group in enumerate(self.groups)]
        self.inputs = {site: InputState.empty(site, self.recipe) for site in self.watched}
        self.draw(0)

    def draw(self, step: int) -> None:
        """Draw what the samples of the step after ``step`` need, where the mask takes samples."""
        mask = self.recipe.mask
        if mask.samples(self.settled):
            places: list[UnitState | SiteState] = [*self.sites.values()]
            if set(mask.memory) <= set(mask.per_unit):
                firsts = [(unit, self.sites[unit.group.sites[0]]) for unit in self.units]
                places = [unit if unit.group.pooled else first for unit, first in firsts]
            for number, place in enumerate(places):
                shard = place.shard if isinstance(place, SiteState) else None
                with whole_memory(place.memory, shard, mask.memory) as memory:
                    mask.draw_(memory, step, number)

    def _unit_state(self, number: int, group: UnitGroup) -> UnitState:
        score, mask = self.recipe.score, self.recipe.mask
        shared = (*score.per_unit, *mask.per_unit)
        first = self.sites[group.sites[0]]
        if not group.pooled:
            memory = {name: first.memory[name].view(-1) for name in shared}
            return UnitState(group, first.keep.view(-1), memory)
        keep = torch.ones(group.count, dtype=torch.bool, device=first.weight.device)
        dtype = score_dtype(first.weight)
        memory = {name: torch.zeros_like(keep, dtype=dtype) for name in shared}
        if score.per_unit:
            score.start_units_(memory, number)
        if mask.per_unit:
            mask.start_(memory, number)
        return UnitState(group, keep, memory)

    def release(self) -> None:
        """Drop the memory."""
        self.sites, self.units, self.inputs, self._scratch = {}, [], {}, None
        self.buffers = []

    def pieces(self, state: SiteState, scratch: Tensor | None = None) -> Iterator[Piece]:
        """The pieces in which a site is worked through.

        ``scratch`` is room for scores of the whole site, of which each piece gets its part; without
        it all have the same.
        """
        memory = {**state.memory, **spread(self.units, state, self.recipe.mask.reads)}
        dense, dtype = state.dense, score_dtype(state.dense)
        narrow, has_worth = is_narrow(memory), state.site in self.inputs
        tensors = [dense, state.keep, *memory.values(), *(() if scratch is None else (scratch,))]
        parts = zip(*map(cut_up, tensors), strict=True)
        for (start, stop), (weight, mask, *more) in zip(
            spans(dense.numel(), dense.device), parts, strict=True
        ):
            known: Mapping[str, Tensor] = dict(zip(memory, more, strict=False))
            if has_worth:
                known = {**known, **self.worth(state.site, start, stop)}
            yield Piece(
                dense=weight,
                keep=mask,
                memory=Widened(known, dtype) if narrow else known,
                scratch=self.scratch(dense, stop - start) if scratch is None else more[-1],
                span=slice(start, stop),
                gated=state.gated,
            )

    def memory_in(self, buffer: Buffer) -> Mapping[str, Tensor]:
        """What score and mask know of the weights of a buffer, (rows, entries)."""
        states = [self.sites[site] for site in buffer.sites]
        reads = self.recipe.mask.reads
        memories = [
            {**spread(self.units, one, reads), **self.worth(one.site, 0, one.keep.numel())}
            for one in states
        ]
        more = {name: torch.stack([m[name] for m in memories]) for name in memories[0]}
        dtype = score_dtype(buffer.sites[0].parameter)
        return widened({**buffer.memory, **more}, dtype)

    def worth(self, site: Site, start: int, stop: int) -> dict[str, Tensor]:
        """What the inputs of the weights of a site from ``start`` to ``stop``, flat, are worth, by
        the name that a score knows it by; empty where the score has no use for it.
        """
        observed = self.inputs.get(site)
        if observed is None or observed.worth is None:
            return {}
        shard = self.sites[site].shard
        before = shard.offset if shard else 0
        return {"worth": observed.worth_of(before + start, before + stop, site)}

    def scratch(self, weight: Tensor, size: int) -> Tensor:
        """A buffer of ``size`` scores beside ``weight``: one allocation, reused."""
        dtype, buffer = score_dtype(weight), self._scratch
        fits = buffer is not None and buffer.numel() >= size and buffer.dtype == dtype
        if buffer is None or not fits or buffer.device != weight.device:
            buffer = self._scratch = torch.empty(size, dtype=dtype, device=weight.device)
        return buffer[:size]

    def to_dict(self, at_rest: Callable[[Site], Tensor | None]) -> dict[str, Any]:
        """What resuming needs besides the weights: plain values and tensors, no copies.

        ``at_rest`` gives the weights of a site that are saved, where the module holds others.
        """
        self.allocate()
        state = {
            "format": FORMAT,
            "recipe": serialization.to_dict(self.recipe),
            "total_steps": self.total_steps,
            "state_dtype": name_of(self.fitted.state_dtype),
            "processes": processes(),
            "step": self.step,
            "pruned": self.pruned,
            "settled": self.settled,
            "weights": self.checksum(at_rest),
            # torch.distributed.checkpoint would take a list of mappings apart.
            "updates": (tuple if self.ranks.share else list)(u.model_dump() for u in self.updates),
            **self._tensors(),
        }
        return Shares(state) if self.ranks.share else state

    def load_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` gave, copied.

        Raises:
            ValueError: It is damaged, or of another format, recipe, number of steps or scope;
                nothing has changed then.
        """
        state, allocated = parse(saved, FORMAT), bool(self.sites)
        recipe = self._recipe_of(state.recipe)
        difference = first_difference(state.recipe, serialization.to_dict(recipe), "recipe")
        difference = difference or other_length(state, self.total_steps, processes())
        difference = difference or other_dtype(state, self.fitted.state_dtype)
        if difference is None:
            self.allocate()
            difference = other_tensors(state, self._tensors()) or miscounted(state, self.ranks)
        if difference:
            if not allocated:  # what stands aside is of the weights when training begins
                self.release()
            raise ValueError(f"cannot resume: {difference}")
        self.recipe = recipe
        copy_(self._tensors(), dict(state))
        self.step, self.pruned, self.settled = state.step, state.pruned, state.settled
        self.updates, self.pending, self.learning = state.records, None, None
        self.brackets, self.quotas, self.scores_changed = {}, (), True

    def _tensors(self) -> dict[str, Any]:
        """All that it keeps, by part and name."""
        return {
            "masks": self.masks,
            "memory": {
                site.name: {
                    name: like(site.parameter, tensor) for name, tensor in state.tensors.items()
                }
                for site, state in self.sites.items()
            },
            "units": {
                f"{unit.group.pattern} {unit.group.name}": {"keep": unit.keep, **unit.memory}
                for unit in self.units
                if unit.group.pooled
            },
            "budget": self.budget,
            "inputs": {site.name: observed.tensors for site, observed in self.inputs.items()},
        }

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by site name, as the weights are held; True = kept."""
        sites = self.sites.items()
        return {site.name: like(site.parameter, state.keep) for site, state in sites}

    def _recipe_of(self, saved: Mapping[str, Any]) -> Recipe:
        """The recipe, with the sparsity that was in the model when the saved pruning began.

        Weights that are kept may have come to zero since.
        """
        schedule, then = self.recipe.schedule, saved.get("schedule")
        if not schedule.from_model or not isinstance(then, Mapping):
            return self.recipe
        sparsity = then.get("sparsity")
        plausible = isinstance(sparsity, float) and 0 <= sparsity < 1
        if then.get("kind") != schedule.label or not plausible:
            return self.recipe
        schedule = schedule.model_copy(update={"sparsity": sparsity})
        return self.recipe.model_copy(update={"schedule": schedule})

    def checksum(self, at_rest: Callable[[Site], Tensor | None] = lambda site: None) -> int:
        """Of some of every site's bytes: tells one checkpoint's weights from another's."""
        weights = {site: at_rest(site) for site in self.selected}
        parts = [local(site.parameter) if one is None else one for site, one in weights.items()]
        shards = [shard_of(site.parameter) for site in weights]
        return checksum([first_of(*pair) for pair in zip(parts, shards, strict=True)], self.ranks)
