"""The arithmetic of training: what the machine does well, or what was asked for."""

from __future__ import annotations

from typing import Literal

import torch

from sentei.run.settings import Precision


def precision(wish: Precision) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to train with; ``auto`` is that of 16 bits which the hardware has.

    Raises:
        ValueError: fp16 without an accelerator.
    """
    if wish == "auto":
        if torch.cuda.is_available():
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return "bf16" if native else "fp16"
        return "bf16" if _cpu_has_bf16() else "fp32"
    if wish == "fp16" and not torch.cuda.is_available():
        raise ValueError("--precision fp16 needs a GPU: use auto, bf16 or fp32")
    return wish


def _cpu_has_bf16() -> bool:
    """Whether bf16 matrix products are faster than fp32 ones here: an instruction for them."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
