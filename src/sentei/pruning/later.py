"""What is known later: numbers of a device on their way to the host, while both go on working."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.parts.progress import Progress


class Later:
    """A tensor's values, copied to the host behind the work that makes them.

    Args:
        values: On any device; a CPU's are there at once.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied = values, None
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.current_stream(values.device).record_event()

    def wait(self) -> Tensor:
        """The values, on the host. The one place where the host waits for a device."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values


def onto(values: Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers of the host as a tensor on a device, without waiting for what it is doing."""
    tensor = torch.tensor(values, dtype=dtype)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Outcome:
    """What a decision has come to: weights pruned, weights that changed sides, the score at the
    cut, where there is one cut.
    """

    pruned: int
    flips: int
    threshold: float | None


@dataclass(frozen=True)
class Pending:
    """A decision whose masks are written and whose numbers may still be on the device.

    ``before`` is how many weights were pruned until then. ``awaited`` says that how many are now is
    not known yet, and the next step wants to know it. ``outcome`` waits for the numbers, and raises
    FloatingPointError where there could be no decision.
    """

    step: int
    target: float
    settled: bool
    before: int
    awaited: bool
    outcome: Callable[[], Outcome]


@dataclass(frozen=True)
class Learning:
    """What a budget is to learn from in the step under way; see
    :meth:`~sentei.parts.budget.Budget.learn_`.
    """

    mask: Later
    ratio: Tensor
    progress: Progress
