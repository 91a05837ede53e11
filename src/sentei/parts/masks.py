"""How a decision reaches the weights. Whatever the form, ``module.weight`` is plain and sparse."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.parts.part import Moment, Part


class Mask(Part):
    """The form of *apply*.

    Every method works on flat pieces of a site, all of one size.
    """

    axis: ClassVar[str] = "mask"

    memory: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors it keeps, each of the weight's shape."""


class Project(Mask):
    """Write zeros into the weight. No other state, and gradients stay dense."""

    kind: Literal["project"] = "project"

    hold: bool | Literal["cooldown"] = False
    """True writes the zeros again after every step, so that pruned weights stay pruned until a
    decision takes them back. False writes them at decisions only: in between, gradient and momentum
    let pruned weights regrow and earn a score. ``cooldown`` is False on the ramp and True after
    it."""

    def holds(self, moment: Moment) -> bool:
        """Whether zeros are written at ``moment`` without a decision."""
        return moment.ramp > 1 if self.hold == "cooldown" else self.hold

    def write_(self, weight: Tensor, keep: Tensor) -> None:
        """Zero what is pruned."""
        zero_pruned_(weight, keep)


class Latent(Mask):
    """Keep the dense weights aside, as latent ones: the module holds latent x mask.

    The optimizer steps the latent weights. With g the gradient of what the module holds, theirs is
    g x mask, and the gradient of the scores is straight-through, g x latent, as if the mask were
    the score itself (Bengio et al. 2013, arXiv 1308.3432; movement pruning, arXiv 2005.07683, eq.
    6). A pruned weight keeps its value, and comes back with it when its score does.
    """

    kind: Literal["latent"] = "latent"
    memory: ClassVar[tuple[str, ...]] = ("latent",)

    surrogate: Literal["straight_through", "sigmoid"] = "straight_through"
    """What stands for the mask in the scores' gradient: the score, or its sigmoid."""

    @property
    def draws(self) -> bool:
        """Whether the module holds a random sample while it trains."""
        return False

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, latent: Tensor, score: Tensor, noise: Tensor | None
    ) -> None:
        """Write the gradient of the scores into ``out``."""
        _product_(out, gradient, latent)
        if self.surrogate == "sigmoid":
            gate = torch.sigmoid(score)
            out.mul_(gate * (1 - gate))

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, score: Tensor | None, noise: Tensor | None
    ) -> None:
        """Turn the gradient of what the module holds into the latent weights', in place."""
        zero_pruned_(gradient, keep)

    def write_(self, weight: Tensor, latent: Tensor, keep: Tensor, score: Tensor | None) -> None:
        """Write latent x mask into ``weight``."""
        bits = _BITS[weight.element_size()]
        torch.mul(latent.view(bits), keep, out=weight.view(bits))


class HardConcrete(Latent):
    """Gates between 0 and 1 around the mask: stochastic in training, deterministic otherwise.

    With score S (log-odds) and u uniform, drawn once an optimizer step: s = sigmoid((log(u / (1 -
    u)) + S) / temperature), gate = min(1, max(0, s (high - low) + low)). Deterministic: s =
    sigmoid(S). (Louizos et al. 2018, arXiv 1712.01312, eq. 10 to 12; movement pruning's code.)

    The module holds the deterministic weights except in forward passes in training mode. Once a
    budget has fixed the count, gates are deterministic in training too.
    """

    kind: Literal["hard_concrete"] = "hard_concrete"
    memory: ClassVar[tuple[str, ...]] = ("latent", "noise")

    surrogate: Literal["straight_through"] = "straight_through"
    """Unused: the gate has a gradient of its own."""

    low: float = Field(-0.1, lt=0)
    """Lower end of the stretched gate."""

    high: float = Field(1.1, gt=1)
    """Upper end of the stretched gate."""

    temperature: float = Field(2 / 3, gt=0)
    """Of the stochastic gate."""

    seed: int = 0
    """Of the draws."""

    @property
    def draws(self) -> bool:
        """True."""
        return True

    def draw_(self, noise: Tensor, step: int, number: int) -> None:
        """Fill ``noise`` with log(u / (1 - u)) of optimizer step ``step`` for site ``number``.

        Seeded by its arguments alone, so that resuming and ranks agree without further state.
        """
        generator = torch.Generator(noise.device)
        generator.manual_seed(((self.seed * 1_000_003 + step) * 10_007 + number) % 2**63)
        noise.uniform_(generator=generator).clamp_(1e-4, 1 - 1e-4).logit_()

    def score_gradient_(
        self, out: Tensor, gradient: Tensor, latent: Tensor, score: Tensor, noise: Tensor | None
    ) -> None:
        """Through the gate: g x latent x d gate / d S."""
        s = self._sigmoid(score, noise)
        stretched = s * (self.high - self.low) + self.low
        slope = s * (1 - s) * (self.high - self.low)
        if noise is not None:
            slope /= self.temperature
        _product_(out, gradient, latent)
        out.mul_(slope).mul_((stretched >= 0) & (stretched <= 1))

    def weight_gradient_(
        self, gradient: Tensor, keep: Tensor, score: Tensor | None, noise: Tensor | None
    ) -> None:
        """G x gate."""
        assert score is not None
        gradient.mul_(self._gate(score, keep, noise))

    def write_(self, weight: Tensor, latent: Tensor, keep: Tensor, score: Tensor | None) -> None:
        """Latent x deterministic gate."""
        assert score is not None
        weight.copy_(latent * self._gate(score, keep, None))

    def sample_(self, weight: Tensor, latent: Tensor, score: Tensor, noise: Tensor) -> None:
        """Latent x stochastic gate."""
        weight.copy_(latent * self._gate(score, None, noise))

    def _sigmoid(self, score: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return torch.sigmoid(score)
        return torch.sigmoid((score + noise) / self.temperature)

    def _gate(self, score: Tensor, keep: Tensor | None, noise: Tensor | None) -> Tensor:
        gate = (self._sigmoid(score, noise) * (self.high - self.low) + self.low).clamp_(0, 1)
        if noise is None and keep is not None:
            # Mask and gate agree on what is zero, however rounding falls at the boundary.
            gate.clamp_(min=1e-6).mul_(keep)
        return gate


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_pruned_(weight: Tensor, keep: Tensor) -> None:
    """Zero the entries of ``weight`` where ``keep`` (same shape, bool) is False, in place.

    The bits are multiplied by 0 or 1 as integers, which leaves +0.0 whatever was there, NaN and
    negative numbers too, and on a CPU takes a third of the time of ``masked_fill_``.
    """
    weight.view(_BITS[weight.element_size()]).mul_(keep)


def _product_(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == b.dtype == out.dtype:
        return torch.mul(a, b, out=out)
    return out.copy_(a).mul_(b)
