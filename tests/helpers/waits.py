"""Counts, without a GPU, what a GPU would launch and what a host would wait for.

Tensors of the model and the pruner play a device's; what comes of one is on the device too. Whoever
reads one there waits: its number asked for, its entries listed, a result whose size depends on
values, a copy to the host. What the pruner fetches for itself it waits for in one place,
:meth:`~sentei.pruning.later.Later.wait`; what was begun before the number that is waited for has
come with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from sentei.pruning import later, selection
from sentei.pruning.later import Later

READS = {
    *("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero", "masked_select", "argwhere"),
    *("bincount", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
"""Operators whose result the host has to know, or the size of it."""

TO_HOST = {"cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__"}
"""Methods of a tensor that copy it to the host."""

NO_KERNEL = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "select", "slice", "unsqueeze", "t"),
    *("squeeze", "unbind", "expand", "as_strided", "transpose", "permute", "split", "chunk"),
    *("split_with_sizes", "narrow", "alias", "detach", "unfold", "diagonal", "lift_fresh"),
    *("empty", "empty_like", "empty_strided", "new_empty"),
}
"""Operators that launch nothing: views, and memory without values."""


class Device:
    """While it is open, counts launches and waits of everything that is done to its tensors.

    Args:
        tensors: On the device from the start.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.launches, self.waits = Counter[str](), Counter[str]()
        # Held, so that nothing else comes to lie where one was.
        self._tensors = {_storage(tensor): tensor for tensor in tensors}
        self._fetches, self._fetched = list[Later](), 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        begin, wait, onto, count = Later.__init__, Later.wait, later.onto, selection._count

        def begun(fetch: Later, values: Tensor) -> None:
            begin(fetch, values)
            self._fetches.append(fetch)
            self.launches["fetch"] += 1

        def waited(fetch: Later) -> Tensor:
            number = self._fetches.index(fetch) + 1 if fetch in self._fetches else 0
            self.waits["fetch"] += number > self._fetched
            self._fetched = max(number, self._fetched)
            with _disable_current_modes():
                return wait(fetch).clone()  # on the host

        def sent(*args: Any) -> Tensor:
            tensor = onto(*args)
            self.take(tensor)
            self.launches["send"] += 1
            return tensor

        def histogram(*args: Any) -> Tensor:
            with _disable_current_modes():  # a GPU takes integers, and casts nothing
                counts = count(*args)
            self.take(counts)
            self.launches["histc"] += 1
            return counts

        for owner, name, replacement in (
            (Later, "__init__", begun),
            (Later, "wait", waited),
            (selection, "onto", sent),
            (selection, "_count", histogram),
        ):
            self._open.enter_context(mock.patch.object(owner, name, replacement))
        self._open.enter_context(_Methods(self))
        self._open.enter_context(_Operators(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def holds(self, values: Any) -> bool:
        """Whether some of them are on the device."""
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        return any(_storage(tensor) in self._tensors for tensor in tensors)

    def take(self, values: Any) -> None:
        """These are on the device too."""
        for leaf in tree_leaves(values):
            if isinstance(leaf, Tensor):
                self._tensors[_storage(leaf)] = leaf


class _Methods(TorchFunctionMode):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in TO_HOST and self._device.holds(args[0]):
            self._device.waits[name] += 1
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name, device = function.overloadpacket.__name__, self._device
        if device.holds((args, kwargs)):
            device.take(result)
            by_mask = name == "index" and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            if name in READS or by_mask:
                device.waits[name] += 1
            elif name not in NO_KERNEL:
                device.launches[name] += 1
        elif name in ("zeros", "ones", "full", "arange"):
            device.launches[name] += 1
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
