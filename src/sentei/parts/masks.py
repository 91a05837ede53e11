"""How a decision reaches the weights. Whatever the form, ``module.weight`` is plain and sparse."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.part import Moment, Part
from sentei.tensors import copy_kept_, product_, zero_pruned_

Memory = Mapping[str, Tensor]


class Mask(Part):
    """The form of *apply*. Its methods work on flat pieces of a site, all of one size."""

    axis: ClassVar[str] = "mask"

    memory: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors it keeps, each of the weight's shape."""

    per_unit: ClassVar[tuple[str, ...]] = ()
    """Those of them with one entry a unit instead, where a pattern prunes units of many weights."""

    @abstractmethod
    def holds(self, moment: Moment) -> bool:
        """Whether the weights are written after a step that has not decided, too."""

    @abstractmethod
    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Make ``weight`` sparse where ``keep`` is False.

        ``weight`` is what the module holds, ``dense`` what training moves: the same tensor, unless
        the mask keeps a latent weight. ``memory`` is the mask's and the score's.
        """


class Project(Mask):
    """Write zeros into the weight. No other state, and gradients stay dense."""

    kind: Literal["project"] = "project"

    hold: bool | Literal["cooldown"] = False
    """True writes the zeros again after every step, so that pruned weights stay pruned until a
    decision takes them back. False writes them at decisions only: in between, gradient and momentum
    let pruned weights regrow and earn a score. ``cooldown`` is False on the ramp and True after
    it."""

    def holds(self, moment: Moment) -> bool:
        """As ``hold`` says."""
        return moment.ramp > 1 if self.hold == "cooldown" else self.hold

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Zero what is pruned."""
        zero_pruned_(weight, keep)


class Gated(Mask):
    """A mask that keeps the dense weights aside, as latent ones: the module holds latent x gate.

    The optimizer steps the latent weights. A pruned weight keeps its value, and comes back with it
    when its score does. Gradients of the latent weights and of the scores are formed from the one
    of what the module holds, ``gradient``; ``sampled`` says that this was a random sample.
    """

    memory: ClassVar[tuple[str, ...]] = ("latent",)

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Names of the per-unit memory, the score's or its own, that its gate reads."""

    def holds(self, moment: Moment) -> bool:
        """Always: the optimizer has moved the latent weights."""
        return True

    @abstractmethod
    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Write the gradient of the scores into ``out``, float32 (float64)."""

    @abstractmethod
    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Turn ``gradient`` into the latent weights', in place."""


class Latent(Gated):
    """The gate is the mask; scores learn straight through it.

    With g the gradient of what the module holds, the latent weights' is g x mask, and the scores' g
    x latent, as if the mask were the score itself (Bengio et al. 2013, arXiv 1308.3432; movement
    pruning, arXiv 2005.07683, eq. 6).
    """

    kind: Literal["latent"] = "latent"

    surrogate: Literal["straight_through", "sigmoid"] = "straight_through"
    """What stands for the mask in the scores' gradient: the score, or its sigmoid."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The score, where its sigmoid stands for the mask."""
        return ("score",) if self.surrogate == "sigmoid" else ()

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """G x latent, times the surrogate's slope."""
        product_(out, gradient, dense)
        if self.surrogate == "sigmoid":
            gate = torch.sigmoid(memory["score"])
            out.mul_(gate * (1 - gate))

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """The gradient x mask."""
        zero_pruned_(gradient, keep)

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Latent x mask."""
        copy_kept_(weight, dense, keep)


class HardConcrete(Gated):
    """Gates between 0 and 1 around the mask: stochastic in training, deterministic otherwise.

    With score S (log-odds) and u uniform, drawn once an optimizer step: s = sigmoid((log(u / (1 -
    u)) + S) / temperature), gate = min(1, max(0, s (high - low) + low)). Deterministic: s =
    sigmoid(S). (Louizos et al. 2018, arXiv 1712.01312, eq. 10 to 12; movement pruning's code.)

    The module holds the deterministic weights except in forward passes in training mode. Once a
    budget has fixed the count, gates are deterministic in training too.
    """

    kind: Literal["hard_concrete"] = "hard_concrete"
    memory: ClassVar[tuple[str, ...]] = ("latent", "noise")
    per_unit: ClassVar[tuple[str, ...]] = ("noise",)

    low: float = Field(-0.1, lt=0)
    """Lower end of the stretched gate."""

    high: float = Field(1.1, gt=1)
    """Upper end of the stretched gate."""

    temperature: float = Field(2 / 3, gt=0)
    """Of the stochastic gate."""

    seed: int = 0
    """Of the draws."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Log-odds and noise."""
        return ("score", "noise")

    def draw_(self, noise: Tensor, step: int, number: int) -> None:
        """Fill ``noise`` with log(u / (1 - u)) of optimizer step ``step`` for site ``number``.

        Seeded by its arguments alone, so that resuming and ranks agree without further state.
        """
        generator = torch.Generator(noise.device)
        generator.manual_seed(((self.seed * 1_000_003 + step) * 10_007 + number) % 2**63)
        noise.uniform_(generator=generator).clamp_(1e-4, 1 - 1e-4).logit_()

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, dense: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """Through the gate: g x latent x d gate / d S."""
        s = self._sigmoid(memory, sampled)
        stretched = s * (self.high - self.low) + self.low
        slope = s * (1 - s) * (self.high - self.low)
        if sampled:
            slope /= self.temperature
        product_(out, gradient, dense)
        out.mul_(slope).mul_((stretched >= 0) & (stretched <= 1))

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, memory: Memory, sampled: bool
    ) -> None:
        """The gradient x gate."""
        gradient.mul_(self._gate(memory, True) if sampled else self._final_gate(keep, memory))

    def write_(self, weight: Tensor, dense: Tensor, keep: Tensor, memory: Memory) -> None:
        """Latent x deterministic gate."""
        weight.copy_(dense * self._final_gate(keep, memory))

    def sample_(self, weight: Tensor, dense: Tensor, memory: Memory) -> None:
        """Latent x stochastic gate."""
        weight.copy_(dense * self._gate(memory, True))

    def open_(self, keep: Tensor, memory: Memory) -> None:
        """Open to a tenth what a fixed count keeps and its own log-odds shut.

        A tenth is about what such a gate has been in training, where a draw opens it now and then.
        At 0 it would count as kept, give nothing and learn nothing.
        """
        tenth = (0.1 - self.low) / (self.high - self.low)
        shut = memory["score"] <= math.log(-self.low / self.high)
        memory["score"].masked_fill_(keep & shut, math.log(tenth / (1 - tenth)))

    def _sigmoid(self, memory: Memory, sampled: bool) -> Tensor:
        if sampled:
            return torch.sigmoid((memory["score"] + memory["noise"]) / self.temperature)
        return torch.sigmoid(memory["score"])

    def _gate(self, memory: Memory, sampled: bool) -> Tensor:
        return (self._sigmoid(memory, sampled) * (self.high - self.low) + self.low).clamp_(0, 1)

    def _final_gate(self, keep: Tensor, memory: Memory) -> Tensor:
        """Zero where the mask is, and there only, however rounding falls at the boundary."""
        return self._gate(memory, False).clamp_(min=1e-6).mul_(keep)
