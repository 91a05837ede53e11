"""Dropout while a model is pruned: a sparse model has less to spare.

Han et al., NeurIPS 2015, arXiv 1506.02626, section 3.2, lower it with the root of what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from torch import nn


class _Scaled(NamedTuple):
    """A probability that somebody has scaled: what it was, what it is, and who it was."""

    original: float
    now: float
    by: object


_scaled: WeakKeyDictionary[nn.Module, dict[str, _Scaled]] = WeakKeyDictionary()
"""By module and name. Known to all, because who scales next may not be who scaled before."""


class Dropout:
    """The dropout probabilities of a model, as they are before training.

    They are the ``p`` of dropout layers, and numbers between 0 and 1 that modules keep under a name
    with ``dropout`` in it, as attention does that computes its own. One that a pruner before has
    scaled, and not put back, is what it was before that one.

    Args:
        model: Any model; looked through at once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._token = object()
        self._found = [
            (ref(module), name, original)
            for module in model.modules()
            for name, value in vars(module).items()
            if isinstance(value, float)
            and ("dropout" in name if not isinstance(module, _LAYERS) else name == "p")
            and 0 < (original := _original(module, name, value)) <= 1
        ]

    def scale(self, factor: float) -> None:
        """Set every one to ``factor`` times what it was."""
        for module, name, original in self._living():
            now = factor * original
            setattr(module, name, now)
            _scaled.setdefault(module, {})[name] = _Scaled(original, now, self._token)

    def restore(self) -> None:
        """Put back those that nobody else has set since :meth:`scale`."""
        for module, name, original in self._living():
            scaled = _scaled.get(module, {}).get(name)
            if scaled and scaled.by is self._token:
                if getattr(module, name) == scaled.now:
                    setattr(module, name, original)
                del _scaled[module][name]

    def _living(self) -> Iterator[tuple[nn.Module, str, float]]:
        for weak, name, original in self._found:
            if (module := weak()) is not None:
                yield module, name, original


def _original(module: nn.Module, name: str, value: float) -> float:
    scaled = _scaled.get(module, {}).get(name)
    return scaled.original if scaled and scaled.now == value else value


_LAYERS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
