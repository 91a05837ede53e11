"""When: a pruner at the optimizer's own step hooks.

    loss.backward() --> before the step   observe: the score reads weight and gradient;
                                          penalties add to the gradient
    optimizer.step()                      the optimizer moves the weights
                    --> after the step    decide: schedule -> budget -> cut (on update steps)
                                          apply: the mask makes the weights sparse

Gradients at the hooks are accumulated, reduced and clipped, and a step that a loss scaler skips
does not count: micro-batches and skipped steps do not exist here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentei.messages import SenteiWarning
from sentei.modules import taught, unwrapped
from sentei.pruning import checkpoint, decide, observe, optimizers
from sentei.pruning.apply import Weights
from sentei.pruning.dropout import Dropout
from sentei.pruning.hooks import Hook
from sentei.pruning.state import PruningState
from sentei.pruning.summary import summarize
from sentei.recipe import Recipe, check_type
from sentei.records import PruningReport, UpdateRecord
from sentei.tensors import count_zeros


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
        fitted = recipe.fit(model, total_steps, examples)
        self._state = PruningState(fitted, total_steps)
        self._weights = Weights(self._state)
        self._model = model
        self._finished = False
        self._skipping = False
        self._expected_weights: int | None = None
        self._lr: dict[int, float] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._dropout = Dropout(model)

    @property
    def recipe(self) -> Recipe:
        """What it does, complete."""
        return self._state.recipe

    @property
    def total_steps(self) -> int:
        """Optimizer steps that training will take."""
        return self._state.total_steps

    @property
    def step(self) -> int:
        """Optimizer steps seen so far."""
        return self._state.step

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return self._state.prunable

    @property
    def pruned(self) -> int:
        """Number of weights that the latest decision pruned."""
        return self._state.pruned

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are exactly zero now, counted (one pass)."""
        return sum(count_zeros(site.parameter) for site in self._state.selected) / self.prunable

    @property
    def target(self) -> float:
        """Sparsity that the schedule asks for at the current step."""
        return self.recipe.schedule.at(self.step, self.total_steps)

    @property
    def updates(self) -> Sequence[UpdateRecord]:
        """Every decision so far, oldest first."""
        return self._state.updates

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, by site name; True = kept. The pruner's own tensors, not copies."""
        return {site.name: site_state.keep for site, site_state in self._state.sites.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Kept ratio by name of a site, or of a head's or neurons' place, where they are learned.

        Where several patterns share a place its pattern stands before the name.
        """
        ratios, groups = self.recipe.budget.ratios(self._state.budget), self._state.groups
        if ratios is None:
            return {}
        several = len({group.name for group in groups}) < len(groups)
        names = [f"{group.pattern} {group.name}" if several else group.name for group in groups]
        return dict(zip(names, ratios.tolist(), strict=True))

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
        optimizer = optimizers.innermost(optimizer)
        optimizers.check_holds(optimizer, self._state.selected)
        if self.recipe.score.observes_new:
            optimizers.check_keeps_gradients(optimizer)
        if not self._state.sites and self.recipe.for_weights(self._state.fitted.selection) != (
            self.recipe
        ):
            raise ValueError(
                "the model has other zeros than when the pruner was made, and they are what this "
                "recipe keeps: load the model's weights first, then make the pruner"
            )
        self._state.allocate()
        if not self._idle:
            self._weights.attach()
            self._dropout.scale(self.recipe.dropout)
        model, mask = unwrapped(self._model), self.recipe.mask
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        if mask.latent:
            self._hooks.append(model.register_state_dict_pre_hook(Hook(self._before_saving)))
        if mask.stochastic:
            self._hooks.append(model.register_forward_pre_hook(Hook(self._before_forward)))

    def detach(self) -> None:
        """Stop pruning; the weights stay as they are, dropout is what it was, the state is kept."""
        self._rest()
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
        self._state.release()
        self._finished = True
        return report

    @torch.no_grad()
    def _decide_last(self) -> None:
        if decide.decide_last(self._state):
            self._weights.write(self._state.progress(self.total_steps), updated=True)
            # Torch counts no changes of parameter.data, and no step of an optimizer tells of these.
            torch.autograd.graph.increment_version(site.parameter for site in self._state.sites)
        decide.warn_if_far(self._state, stacklevel=4)

    @torch.no_grad()
    def _report(self) -> PruningReport:
        return summarize(self._state, self._model)

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the weights: plain values and tensors, no copies.

        Pass it to :meth:`load_state_dict` of a pruner with the same model, recipe and steps; the
        run then continues bit for bit.
        """
        self._rest()
        return self._state.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken. The weights are loaded by their owner.

        Raises:
            ValueError: The state is of another format, recipe, number of steps or scope; the
                pruner is then unchanged. Or, at the next step: the weights are not those that the
                state was saved with.
        """
        self._state.load_dict(state)
        self._weights.forget()
        self._expected_weights = state["weights"]

    def save(self, path: str | Path) -> None:
        """Write :meth:`state_dict` as one safetensors file; an earlier file there stays whole
        until the new one is complete.

        Raises:
            OSError: It could not be written.
        """
        checkpoint.write(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Read a file of :meth:`save`.

        Raises:
            ValueError: It is missing, damaged or not a pruner's state, or does not fit (see
                :meth:`load_state_dict`).
        """
        try:
            self.load_state_dict(checkpoint.read(path))
        except ValueError as error:
            message = str(error)
            raise ValueError(message if str(path) in message else f"{path}: {message}") from error

    # At the hooks.

    @property
    def _idle(self) -> bool:
        """At sparsity 0 training is left alone: no score, no penalty, no mask."""
        return self.recipe.schedule.sparsity == 0

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._skipping = optimizers.overflowed(optimizer)
        if self._skipping:
            self._rest()
            self._weights.sampled_forward = False
        else:
            self._weights.restore(self._state.progress(self.step))
        if self._skipping or self._idle:
            return
        if self.step == 0:
            self._check_teacher()
        self._check_weights()
        optimizers.unscale_(optimizer)
        if observe.reads_gradient(self.recipe):
            if next(iter(args[1:]), kwargs.get("closure")) is not None:
                raise ValueError(
                    "this recipe reads or changes gradients before the optimizer's step, but a "
                    "closure computes them inside: step without a closure, or (where the score is "
                    "why) use score.iterate='new'"
                )
            progress = self._state.progress(self.step + 1, decision=self.step)
            observe.before_step(self._state, progress, sampled=self._weights.sampled_forward)
        if observe.shrinks(self.recipe):
            self._lr = optimizers.learning_rates(optimizer)
        self._weights.swap()

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._skipping:
            return
        self._state.step += 1
        if self.step == self.total_steps + 1:
            warnings.warn(
                f"training goes on past total_steps={self.total_steps}: the sparsity stays at "
                f"{self.recipe.schedule.sparsity:g}",
                SenteiWarning,
                stacklevel=2,
            )
        if self._idle:
            return
        state, weights, progress = self._state, self._weights, self._state.progress(self.step)
        weights.swap()
        if observe.shrinks(self.recipe):
            observe.shrink(state, self._lr, progress)
        if self.recipe.score.observes_new:
            observe.after_step(state, self.step)
        state.scores_changed |= self.recipe.score.changes_at(self.step)
        updated = self.recipe.schedule.is_update(self.step, self.total_steps)
        if updated:
            if not self.recipe.mask.latent:
                weights.write(progress, updated=False)  # a held weight is zero when it is ranked
            decide.decide(state, progress, self.step)
        weights.write(progress, updated=updated)
        weights.step_done()

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
            self._weights.sample()
        else:
            self._rest()

    def _before_saving(self, module: nn.Module, prefix: str, keep_vars: bool) -> None:
        self._rest()

    @torch.no_grad()
    def _rest(self) -> None:
        """Leave the deterministic weights in the modules."""
        self._weights.rest(self._state.progress(self.step))

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
        if self._expected_weights is not None and self._expected_weights != self._state.checksum():
            raise ValueError(
                f"cannot resume at step {self.step}: the prunable weights are not what they were "
                "when the pruner's state was saved; load the model's weights of the same checkpoint"
            )
        self._expected_weights = None
        self._weights.check_untouched()
