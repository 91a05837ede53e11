"""What a model can be written as, and what that needs installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from sentei.messages import did_you_mean

FORMATS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Formats, and the packages that write and run each."""

TOLERANCES: Final[Mapping[str, float]] = {"fp32": 1e-3, "int8": 0.3}
"""Relative difference of the outputs that is still taken, by precision."""


@dataclass(frozen=True)
class Target:
    """A format at a precision."""

    format: str
    int8: bool = False

    @property
    def precision(self) -> str:
        """As reports call it."""
        return "int8" if self.int8 else "fp32"

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs installed."""
        static = ("nncf",) if self.int8 and self.format == "openvino" else ()
        return (*FORMATS[self.format], *static)

    def check(self) -> None:
        """Refuse what is no format, or cannot be written here.

        Raises:
            ValueError: It is or cannot.
        """
        if self.format not in FORMATS:
            near = did_you_mean(self.format, FORMATS) or "."
            raise ValueError(f"--to {self.format}{near} Choose from {', '.join(FORMATS)}.")
        missing = [one for one in self.packages if importlib.util.find_spec(one) is None]
        if missing:
            raise ValueError(
                f"--to {self.format}{' --int8' if self.int8 else ''}: not installed: "
                f"{' '.join(missing)}; pip install 'sentei[export]'"
            )

    def versions(self) -> dict[str, str]:
        """Of the packages that take part."""
        return {one: metadata.version(one) for one in ("torch", "transformers", *self.packages)}
