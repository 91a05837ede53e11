"""What engines were timed on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    *("torch", "transformers", "numpy", "llvmlite"),
    *("onnxruntime", "onnx", "openvino", "nncf"),
)
"""Whose versions are told."""

_FLAGS: Final = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm"),
)
"""What engines look for in a CPU."""


def facts() -> dict[str, str]:
    """CPU, cores and versions; the load while it is asked."""
    one, five, fifteen = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return {
        "cpu": cpu(),
        "features": " ".join(flag for flag in _FLAGS if flag in _cpuinfo("flags", "Features")),
        "cores": str(os.cpu_count()),
        "load": f"{one:.1f} {five:.1f} {fifteen:.1f}",
        "platform": platform.platform(),
        "python": platform.python_version(),
        **versions(*PACKAGES),
    }


def cpu() -> str:
    """Its name."""
    return " ".join(_cpuinfo("model name")) or platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo(*keys: str) -> list[str]:
    """The words of the first line of one of these names, where Linux has such lines."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in keys:
                return value.split()
    return []
