"""How much is pruned when: sparsity as a function of training, and the steps that decide."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from sentei.parts.part import Part


def _no_percentage(value: Any) -> Any:
    if isinstance(value, int | float) and 1 < value < 100:
        raise ValueError(f"is a fraction; for {value:g} % say {value / 100:g}")
    return value


Sparsity = Annotated[float, BeforeValidator(_no_percentage), Field(ge=0, lt=1)]
"""Fraction of the prunable weights removed, in [0, 1)."""


class Schedule(Part):
    """Sparsity against steps. Steps are optimizer steps, counted from 1 to ``total``."""

    axis: ClassVar[str] = "schedule"

    from_model: ClassVar[bool] = False
    """Whether the sparsity is the one that the model has when pruning begins: then
    :meth:`resolve` takes it from there."""

    sparsity: Sparsity
    """Final sparsity: the fraction of prunable weights removed at the end, in [0, 1)."""

    @abstractmethod
    def at(self, step: int, total: int) -> float:
        """Sparsity asked for at ``step`` of ``total``, in [0, ``sparsity``]."""

    @abstractmethod
    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` on the way to the final sparsity: 0 where pruning starts, 1 where the
        final sparsity is reached; below and above outside.
        """

    @abstractmethod
    def is_update(self, step: int, total: int) -> bool:
        """Whether a decision is made at ``step``."""

    @abstractmethod
    def check(self, total: int) -> None:
        """Raise ValueError when the schedule cannot run in ``total`` steps."""

    def resolve(self, zeros: int, weights: int) -> Self:
        """The schedule for a model with so many zeros among its prunable weights.

        Raises:
            ValueError: The model has other zeros than it needs.
        """
        return self

    def at_once(self) -> Schedule:
        """The same final sparsity in one decision, without training."""
        return AtOnce(sparsity=self.sparsity)

    def first_update(self, total: int) -> int:
        """The first step that decides."""
        return next(step for step in range(1, total + 1) if self.is_update(step, total))


class Cubic(Schedule):
    """Zhu and Gupta's cubic ramp between a dense warm-up and a cool-down at the final sparsity.

    With warm-up t_i and cool-down t_f in steps of T: s = 0 up to t_i, then
    s_T + (s_0 - s_T) (1 - (t - t_i) / (T - t_i - t_f))^3, and s_T during the last t_f steps. The
    last step of training always decides. (arXiv 1710.01878, eq. 1; PLATON's authors' code.)
    """

    kind: Literal["cubic"] = "cubic"

    warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training before the first pruning."""

    cooldown: float = Field(0.3, ge=0, lt=1)
    """Fraction of training after the ramp, spent at the final sparsity."""

    every: int = Field(10, ge=1)
    """Optimizer steps between decisions on the ramp."""

    offset: int = Field(0, ge=0)
    """Decisions on the ramp are made at multiples of ``every`` plus this: 0 counts steps from 1 as
    PLATON's code does, 1 from 0 as MGPP's does."""

    cooldown_every: int = Field(1, ge=0)
    """Optimizer steps between decisions in the cool-down; 0 decides once, where the ramp ends."""

    initial: float = Field(0.0, ge=0, lt=1)
    """Sparsity at the ramp's start: a first jump, made at the last step of the warm-up."""

    def at(self, step: int, total: int) -> float:
        """Sparsity asked for at ``step`` of ``total``."""
        place, initial = self.ramp(step, total), min(self.initial, self.sparsity)
        if place < 0 or (place == 0 and not self._jumps(step)):
            return 0.0
        if place >= 1:
            return self.sparsity
        return self.sparsity + (initial - self.sparsity) * (1 - place) ** 3

    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` between the end of the warm-up and the start of the cool-down."""
        start, end = self._ends(total)
        return (step - start) / (end - start)

    def is_update(self, step: int, total: int) -> bool:
        """At the jump, every ``every`` steps on the ramp, ``cooldown_every`` after it, and last."""
        start, end = self._ends(total)
        if step <= start:
            return step == start and self._jumps(step)
        if step == total:
            return True
        if self.cooldown_every == 0:
            return step == end or (step < end and self._on_grid(step))
        if step <= end:
            return self._on_grid(step)
        return (step - end - 1) % self.cooldown_every == 0

    def check(self, total: int) -> None:
        """Refuse a warm-up and cool-down that leave no ramp, and a ramp without a decision."""
        start, end = self._ends(total)
        if end <= start:
            raise ValueError(
                f"schedule: a warm-up of {self.warmup:g} and a cool-down of {self.cooldown:g} "
                f"leave none of the {total} training steps to prune in; their sum must be below 1"
            )
        if not any(self._on_grid(step) for step in range(start + 1, end + 1)):
            raise ValueError(
                f"schedule.every={self.every}: the ramp, steps {start + 1} to {end} of {total}, "
                "holds no multiple of it, so all pruning would happen at once; train longer or "
                f"set schedule.every to at most {end - start}"
            )

    def _jumps(self, step: int) -> bool:
        return self.initial > 0 and step > 0

    def _on_grid(self, step: int) -> bool:
        return step % self.every == self.offset % self.every

    def _ends(self, total: int) -> tuple[int, int]:
        """The last step of the warm-up and the last step of the ramp."""
        return round(self.warmup * total), total - round(self.cooldown * total)


class Constant(Schedule):
    """The final sparsity is asked for from the start: for budgets that find their own way there."""

    kind: Literal["constant"] = "constant"

    warmup: float = Field(0.0, ge=0, lt=1)
    """Fraction of training before the first decision."""

    every: int = Field(1, ge=1)
    """Optimizer steps between decisions."""

    def at(self, step: int, total: int) -> float:
        """The final sparsity, once the warm-up is over."""
        return self.sparsity if step >= self._start(total) else 0.0

    def ramp(self, step: int, total: int) -> float:
        """Place of ``step`` between the end of the warm-up and the end of training."""
        start = self._start(total)
        return (step - start) / (total - start)

    def is_update(self, step: int, total: int) -> bool:
        """Every ``every`` steps after the warm-up, and at the last step."""
        passed = step - self._start(total)
        return step == total or (passed > 0 and passed % self.every == 0)

    def check(self, total: int) -> None:
        """Refuse a warm-up that leaves no step."""
        if self._start(total) >= total:
            raise ValueError(f"schedule.warmup={self.warmup:g} leaves no step of {total} to prune")

    def _start(self, total: int) -> int:
        return round(self.warmup * total)


class AtOnce(Schedule):
    """Everything at the last step: training ends with the one decision."""

    kind: Literal["at_once"] = "at_once"

    def at(self, step: int, total: int) -> float:
        """The final sparsity, at the last step."""
        return self.sparsity if step >= total else 0.0

    def ramp(self, step: int, total: int) -> float:
        """The ramp is the last step."""
        return float(step - total + 1)

    def is_update(self, step: int, total: int) -> bool:
        """At the last step."""
        return step == total

    def check(self, total: int) -> None:
        """It fits any training."""
        return None
