"""Whether a model's weights are still those that a program was made of."""

from __future__ import annotations

import operator
import threading
import weakref
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

_version = operator.attrgetter("_version")
_lock = threading.Lock()
_watches: weakref.WeakSet[Watch] = weakref.WeakSet()
_hooks: list[Any] = []


class Watch:
    """What the modules and weights of a model are now, to be compared with later.

    Seen are in-place changes, as of ``load_state_dict``, other memory behind a weight, other
    weights and modules, and steps of optimizers. Not seen are in-place changes of
    ``parameter.data``, of which torch keeps no count, until something else changes as well.

    Args:
        base: The model without its head; its pooler does not count.
    """

    def __init__(self, base: nn.Module) -> None:
        self._owners: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        for name, module in base.named_modules():
            if name.split(".")[0] != "pooler":
                for owner in (module._modules, module._parameters):
                    kept = [key for key in owner if not (module is base and key == "pooler")]
                    self._owners += [owner] * len(kept)
                    self._names += kept
                    self._values += [owner[key] for key in kept]
        found = [value for value in self._values if isinstance(value, nn.Parameter)]
        # Tensors made in inference mode have no count of changes.
        self._counted: list[Tensor] = [one for one in found if not one.is_inference()]
        self._all: list[Tensor] = list(found)
        self._versions = list(map(_version, self._counted))
        self._places = list(map(nn.Parameter.data_ptr, self._all))
        self._numbers = frozenset(map(id, found))
        self.stale = False
        """Whether the weights were trained since."""

        with _lock:
            _watches.add(self)
            if not _hooks:
                _hooks.append(register_optimizer_step_post_hook(_stepped))

    def same(self) -> bool:
        """Whether nothing has changed."""
        return (
            not self.stale
            and all(map(operator.is_, map(dict.get, self._owners, self._names), self._values))
            and list(map(_version, self._counted)) == self._versions
            and list(map(nn.Parameter.data_ptr, self._all)) == self._places
        )

    def stepped(self, optimizer: Optimizer) -> None:
        """Notice an optimizer's step."""
        weights = (one for group in optimizer.param_groups for one in group["params"])
        if not self.stale and any(id(one) in self._numbers for one in weights):
            self.stale = True


def _stepped(optimizer: Optimizer, *arguments: Any) -> None:
    """After each step of any optimizer: fused ones change weights without counting it."""
    del arguments
    with _lock:
        watches = list(_watches)
    for watch in watches:
        watch.stepped(optimizer)
