"""How much is pruned when: sparsity as a function of training, and the steps that decide."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import Field

from sentei.parts.part import Part


class Schedule(Part):
    """Sparsity against steps. Steps are optimizer steps, counted from 1 to ``total``."""

    axis: ClassVar[str] = "schedule"

    sparsity: float = Field(ge=0, lt=1)
    """Final sparsity: the fraction of prunable weights removed at the end, in [0, 1)."""

    @abstractmethod
    def at(self, step: int, total: int) -> float:
        """Sparsity asked for at ``step`` of ``total``, in [0, ``sparsity``]."""

    @abstractmethod
    def is_update(self, step: int, total: int) -> bool:
        """Whether a decision is made at ``step``."""

    @abstractmethod
    def check(self, total: int) -> None:
        """Raise ValueError when the schedule cannot run in ``total`` steps."""

    def first_update(self, total: int) -> int:
        """The first step that decides."""
        return next(step for step in range(1, total + 1) if self.is_update(step, total))


class Cubic(Schedule):
    """Zhu and Gupta's cubic ramp between a dense warm-up and a cool-down at the final sparsity.

    With warm-up t_i and cool-down t_f in steps of T: s = 0 up to t_i, then
    s_T (1 - (1 - (t - t_i) / (T - t_i - t_f))^3), and s_T during the last t_f steps. The last
    step of training always decides. (arXiv 1710.01878, eq. 1; PLATON's authors' code.)
    """

    kind: Literal["cubic"] = "cubic"

    warmup: float = Field(0.1, ge=0, lt=1)
    """Fraction of training before the first pruning."""

    cooldown: float = Field(0.3, ge=0, lt=1)
    """Fraction of training after the ramp, spent at the final sparsity."""

    every: int = Field(10, ge=1)
    """Optimizer steps between decisions on the ramp, made at its multiples."""

    cooldown_every: int = Field(1, ge=0)
    """Optimizer steps between decisions in the cool-down; 0 decides once, at its first step."""

    def at(self, step: int, total: int) -> float:
        """Sparsity asked for at ``step`` of ``total``."""
        start, end = self._ramp(total)
        if step <= start:
            return 0.0
        if step >= end:
            return self.sparsity
        return self.sparsity * (1 - (1 - (step - start) / (end - start)) ** 3)

    def is_update(self, step: int, total: int) -> bool:
        """Multiples of ``every`` on the ramp, ``cooldown_every`` after it, and the last step."""
        start, end = self._ramp(total)
        if step <= start:
            return False
        if step == total:
            return True
        if step <= end:
            return step % self.every == 0
        passed = step - end - 1
        return passed % self.cooldown_every == 0 if self.cooldown_every else passed == 0

    def check(self, total: int) -> None:
        """Refuse a warm-up and cool-down that leave no ramp, and a ramp without a decision."""
        start, end = self._ramp(total)
        if end <= start:
            raise ValueError(
                f"schedule: a warm-up of {self.warmup:g} and a cool-down of {self.cooldown:g} "
                f"leave none of the {total} training steps to prune in; their sum must be below 1"
            )
        if not any(step % self.every == 0 for step in range(start + 1, end + 1)):
            raise ValueError(
                f"schedule.every={self.every}: the ramp, steps {start + 1} to {end} of {total}, "
                "holds no multiple of it, so all pruning would happen at once; train longer or "
                f"set schedule.every to at most {end - start}"
            )

    def _ramp(self, total: int) -> tuple[int, int]:
        """The last step of the warm-up and the last step of the ramp."""
        return round(self.warmup * total), total - round(self.cooldown * total)
