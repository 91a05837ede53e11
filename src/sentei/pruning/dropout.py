"""Dropout while a model is pruned: a sparse model has less to spare.

Han et al., NeurIPS 2015, arXiv 1506.02626, section 3.2, lower it with the root of what is left.
"""

from __future__ import annotations

from torch import nn


class Dropout:
    """The dropout probabilities of a model, as they are before training.

    They are the ``p`` of dropout layers, and numbers between 0 and 1 that modules keep under a name
    with ``dropout`` in it, as attention does that computes its own.

    Args:
        model: Any model; looked through at once.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found = [
            (module, name, float(value))
            for module in model.modules()
            for name, value in vars(module).items()
            if isinstance(value, float)
            and 0 < value <= 1
            and ("dropout" in name if not isinstance(module, _LAYERS) else name == "p")
        ]

    def scale(self, factor: float) -> None:
        """Set every one to ``factor`` times what it was; 1 puts it back."""
        for module, name, value in self._found:
            setattr(module, name, factor * value)


_LAYERS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
