"""Which engines there are, at which precisions, and what each needs installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sentei.export.target import Target
from sentei.messages import did_you_mean

ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    "sentei": ("int8", "bf16", "fp32"),
    "torch": ("fp32", "bf16"),
    "shrunk": ("fp32",),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}
"""Engine to its precisions; ``shrunk`` is torch without what is idle in the model."""

_READS: Final[Mapping[str, str]] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""Engines outside PyTorch, and the format that each reads."""

PRECISIONS: Final = ("fp32", "bf16", "int8")


class Engine(NamedTuple):
    """An engine at one precision."""

    name: str
    precision: str

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs besides the core."""
        if self.name in _READS:
            return Target(_READS[self.name], self.precision == "int8").packages
        return ("llvmlite",) if self.name == "sentei" else ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Those that are not installed."""
        return tuple(one for one in self.packages if importlib.util.find_spec(one) is None)

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def choose(names: Sequence[str], precisions: Sequence[str]) -> tuple[Engine, ...]:
    """The engines of some names at some precisions; of none named, all.

    Raises:
        ValueError: There is no such engine or precision, or no engine has the precision.
    """
    for option, values, known in (
        ("engine", names, ENGINES),
        ("precision", precisions, PRECISIONS),
    ):
        for value in values:
            if value not in known:
                raise ValueError(
                    f"--{option} {value}{did_you_mean(value, known) or '.'} "
                    f"Choose from {', '.join(known)}."
                )
    chosen = tuple(
        Engine(name, precision)
        for name in names or ENGINES
        for precision in ENGINES[name]
        if precision in (precisions or PRECISIONS)
    )
    if not chosen:
        raise ValueError(
            f"--precision {', '.join(precisions)}: {' and '.join(names)} cannot do that; name "
            "another engine with --engine"
        )
    return chosen


def split(engines: Sequence[Engine]) -> tuple[tuple[Engine, ...], tuple[str, ...]]:
    """Those that can be used here, and a sentence for each set of packages that others lack."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for engine in engines:
        if engine.missing:
            lacking.setdefault(engine.missing, []).append(str(engine))
    sentences = [
        f"{', '.join(who)}: not installed: {' '.join(packages)}"
        for packages, who in lacking.items()
    ]
    return tuple(engine for engine in engines if not engine.missing), tuple(sentences)
