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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import finalize, ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentei.messages import SenteiWarning
from sentei.modules import unwrapped
from sentei.parts.inputs import linear_maps
from sentei.pruning import audit, checkpoint, decide, optimizers, ownership
from sentei.pruning.apply import Weights
from sentei.pruning.dropout import Dropout
from sentei.pruning.hooks import Hook
from sentei.pruning.inputs import LayerInputs
from sentei.pruning.state import PruningState
from sentei.pruning.steps import Steps
from sentei.pruning.summary import summarize
from sentei.pruning.unseen import Unseen
from sentei.recipe import Fitted, Recipe, check_type
from sentei.records import PruningReport, UpdateRecord
from sentei.sharded import hold_shards
from sentei.tensors import count_zeros


class Pruner:
    """Prunes a model while somebody else trains it.

    Args:
        model: The model being trained; its parameters are changed in place by the mask.
        recipe: What to do.
        total_steps: Optimizer steps that training will take.
        examples: Number of training examples, for recipes with a prior on the weights.
        state_dtype: Of the running means that ``auto``, ``platon`` and ``sensitivity`` keep:
            ``torch.float32`` (float64 for float64 weights), or ``torch.bfloat16``, half of that.

    Raises:
        TypeError: ``recipe`` is none.
        ValueError: The scope matches nothing or something that cannot be pruned, the schedule does
            not fit ``total_steps``, ``examples`` is missing, or ``state_dtype`` is not possible.

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
        state_dtype: torch.dtype = torch.float32,
    ) -> None:
        check_type(recipe)
        fit = partial(recipe.fit, model, total_steps, examples, state_dtype)
        self._prepare = partial(self._look_up, model, fit, total_steps)
        self._prepare()
        self._finished: PruningReport | None = None
        self._hooks: list[torch.utils.hooks.RemovableHandle | Unseen] = []
        self._optimizer: ref[Optimizer] | None = None
        self._dropout = Dropout(model)
        finalize(self, self._dropout.restore).atexit = False

    def _look_up(self, model: nn.Module, fit: Callable[[], Fitted], total_steps: int) -> None:
        """Look the weights up, and get ready to prune them."""
        hold_shards(model)
        fitted = fit()
        part, sites = fitted.recipe.inputs, fitted.selection.sites
        maps = linear_maps(model, sites) if part else {}
        self._model, self._places = model, ownership.Places(model, sites)
        self._inputs = LayerInputs(model, maps, part) if part else None
        self._state = PruningState(fitted, total_steps, tuple(maps))
        self._weights = Weights(self._state, self._places)
        self._steps = Steps(model, self._state, self._weights, self._places, self._inputs)

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

    @torch.no_grad()
    def _conclude(self) -> None:
        decide.conclude(self._state)

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return self._state.prunable

    @property
    def pruned(self) -> int:
        """Number of weights that the latest decision pruned."""
        self._conclude()
        return self._state.pruned

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that are exactly zero in the model as it would be saved
        now, counted (one pass). Of a sharded model all processes must ask.

        Raises:
            ValueError: The model no longer holds them.
        """
        self._places.check()
        zeros = 0
        for site in self._state.selected:
            saved = self._weights.at_rest(site)
            zeros += count_zeros(site.parameter if saved is None else saved)
        return self._state.ranks.total(zeros) / self.prunable

    @property
    def target(self) -> float:
        """Sparsity that the schedule asks for at the current step."""
        return self.recipe.schedule.at(self.step, self.total_steps)

    @property
    def updates(self) -> Sequence[UpdateRecord]:
        """Every decision so far, oldest first. On a GPU, waits for the numbers of the latest."""
        self._conclude()
        return self._state.updates

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, by site name; True = kept. The pruner's own tensors, or shards."""
        return self._state.masks

    @property
    def ratios(self) -> dict[str, float]:
        """Kept ratio by name of a site, or of a head's or neurons' place, where they are learned.

        Where several patterns share a place its pattern stands before the name.
        """
        return self._state.ratios()

    @property
    def attached(self) -> bool:
        """Whether it prunes at the steps of an optimizer now."""
        return bool(self._hooks)

    @property
    def stepped(self) -> bool:
        """Whether the optimizer has stepped, or skipped a step, since :meth:`attach`."""
        return self._steps.seen

    def attach(self, optimizer: Optimizer) -> None:
        """Prune at every step of ``optimizer`` from now on. Nothing else in the loop changes.

        If the recipe asks for less dropout (``auto`` for none), the model has it from now on, until
        the pruner finishes or is detached. A pruner that was attached to some of the same weights
        before, by a training that broke off, is detached, with a warning: one acts on a weight.

        Args:
            optimizer: Any torch optimizer that holds the prunable weights, or a wrapper of one:
                Accelerate's, or one that contains optimizers.

        Raises:
            ValueError: It is no torch optimizer, it does not hold every prunable weight, it writes
                to gradients or weights that the recipe needs as they are, the model no longer holds
                the weights, or this pruner is attached to another or has finished.
        """
        if self._finished:
            raise ValueError("this pruner has finished: make another for another training")
        if self._places.sharded_since and not self._state.sites:
            self._prepare()
        self._places.check()
        optimizer = optimizers.stepping(optimizer, self._state.selected)
        before = self._optimizer() if self._optimizer and self._hooks else None
        if before is optimizer:
            return
        if before is not None:
            raise ValueError(
                "this pruner is attached to an optimizer already: pruner.detach() first, to go on "
                "with another"
            )
        optimizers.check_fits(optimizer, self.recipe)
        decide.check_shards(self._state)
        self.detach()  # from an optimizer that is gone
        ownership.take_over(self, [site.parameter for site in self._state.selected])
        if not self._state.sites and self.recipe.for_weights(self._state.fitted.selection) != (
            self.recipe
        ):
            raise ValueError(
                "the model has other zeros than when the pruner was made, and they are what this "
                "recipe keeps: load the model's weights first, then make the pruner"
            )
        self._state.allocate()
        self._optimizer, self._steps.seen, self._steps.owner = ref(optimizer), False, self
        steps = ref(self._steps)
        self._hooks = [
            optimizer.register_step_pre_hook(self._steps.before),
            optimizer.register_step_post_hook(self._steps.after),
            Unseen(self._state.selected[0], lambda: (alive := steps()) is None or alive.seen),
        ]
        self._hook_model()

    def _hook_model(self) -> None:
        """Put the hooks on the model that the recipe needs."""
        if self._steps.idle:
            return
        self._hooks += self._weights.attach()
        if self.recipe.dropout != 1:
            self._dropout.scale(self.recipe.dropout)
        model = unwrapped(self._model)
        if self.recipe.mask.latent:
            resting = Hook(before_copying=self._weights.rest)
            self._hooks.append(model.register_state_dict_pre_hook(resting))
        if self._weights.varies:
            training = Hook(self._steps.before_forward)
            # Before fully_shard's own, which make whole copies of the weights.
            self._hooks.append(model.register_forward_pre_hook(training, prepend=True))
        if self._inputs:
            self._hooks += self._inputs.attach()
            self._steps.look_ahead()

    def compare_masks(self, group: Any) -> None:
        """Compare masks with processes of a torch group that hold copies of the weights, at every
        decision; of DDP and HSDP that is done unasked. ``RuntimeError`` ends what is not the same.
        """
        self._steps.agreement.among(group)

    def detach(self) -> None:
        """Stop pruning; the weights stay as they are, dropout is what it was, the state is kept."""
        self._weights.rest()
        self._dropout.restore()
        if self._inputs:
            self._inputs.rest()
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._steps.owner = [], None

    def finish(self) -> PruningReport:
        """Make the last decision at the final sparsity, detach, drop the state, and report.

        Where the last training step has decided already, and nobody has written to the weights
        since, no weight changes. What was pruned and is not zero, because somebody has, is zeroed
        again, with a warning; so is one given where more is zero than was decided.

        Returns:
            The report; every number in it is measured on the model's weights.

        Raises:
            ValueError: No optimizer step was seen, or too few for the score to mean anything; the
                model no longer holds the weights, another pruner has taken them over, or they were
                written to where that cannot be joined with the last decision.
            FloatingPointError: A prunable weight is NaN or infinite.
        """
        if self._finished:
            raise ValueError("this pruner has finished already")
        if not ownership.owns(self, [site.parameter for site in self._state.selected]):
            raise ValueError(
                "another pruner has been attached to these weights since, and acts on them: finish "
                "that one"
            )
        if self.step == 0:
            raise ValueError(
                "pruning never ran: no step of an attached optimizer was seen. Call "
                "pruner.attach(optimizer) before training, with the optimizer that is stepped"
            )
        self._places.check()
        self._weights.check_form()
        self._steps.agreement.check()
        if self.target < self.recipe.schedule.sparsity:
            warnings.warn(
                f"training stopped at step {self.step} of {self.total_steps}: pruning straight "
                f"to the final sparsity {self.recipe.schedule.sparsity:g}",
                SenteiWarning,
                stacklevel=2,
            )
        self._weights.rest()
        self._conclude()
        if not self._steps.idle:
            self._decide_last()
        self.detach()
        with torch.no_grad():
            self._finished = summarize(self._state, self._model)
        self._state.release()
        return self._finished

    @torch.no_grad()
    def _decide_last(self) -> None:
        if decide.is_due(self._state):
            if not self._weights.as_written:
                raise ValueError(
                    f"the weights were written to after step {self.step}, by {audit.WRITERS}, and "
                    "the last decision, still to be made, would undo it, because this recipe keeps "
                    "the dense weights aside: finish first, then average or load into a copy of "
                    "the model and mask that with pruner.mask_"
                )
            decide.decide_last(self._state)
            self._weights.write(self._state.progress(self.total_steps), updated=True)
            # Torch counts no changes of parameter.data, and no step of an optimizer tells of these.
            torch.autograd.graph.increment_version(site.parameter for site in self._state.sites)
        audit.check_finite(self._state)
        audit.enforce_(self._state, stacklevel=3)
        decide.warn_if_far(self._state, stacklevel=4)

    def mask_(self, copy: nn.Module | Mapping[str, Tensor]) -> float:
        """Zero in a copy of the model what is pruned in the model: in averaged weights (EMA, SWA).

        An average over training is dense where weights were pruned on the way. Call it after
        :meth:`finish`, with the copy that is to be kept, or in training before the copy is
        evaluated.

        Args:
            copy: A copy of the model, wrapped or not (``AveragedModel``), or its state dict.

        Returns:
            The fraction of its prunable weights that are zero now.

        Raises:
            ValueError: It is no copy of this model; nothing has been attached yet; or somebody has
                written to the model since :meth:`finish`.
        """
        return audit.mask_copy_(self._state, copy, self._finished)

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the weights: plain values and tensors, no copies.

        Pass it to :meth:`load_state_dict` of a pruner with the same model, recipe and steps; the
        run then continues bit for bit.
        """
        self._weights.restore()
        self._conclude()
        return self._state.to_dict(self._weights.at_rest)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken. The weights are loaded by their owner.

        Raises:
            ValueError: The state is of another format, recipe, number of steps or scope; the
                pruner is then unchanged. Or, at the next step: the weights are not those that the
                state was saved with.
        """
        self._state.load_dict(state)
        self._weights.forget()
        self._steps.expected_weights = state["weights"]
        if self.attached:
            self._steps.look_ahead()

    def save(self, path: str | Path) -> None:
        """Write :meth:`state_dict` as one safetensors file; an earlier file there stays whole
        until the new one is complete. Of a sharded model all processes call it, the first writes.

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
