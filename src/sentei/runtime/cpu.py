"""What the CPU can do, and which precisions follow from that."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import Final, Literal

Isa = Literal["avx512", "avx2", "generic"]
Precision = Literal["fp32", "bf16", "int8"]

_AVX2: Final = ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "sse4.2", "popcnt")
_AVX512: Final = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
_DOTS: Final = ("avx512vnni", "avx512bf16", "avx512vbmi", "avx512vbmi2")


@dataclass(frozen=True)
class Target:
    """A CPU as the kernels see it.

    ``name`` and ``features`` are LLVM's, ``registers`` the number of its vector registers,
    ``register_lanes`` the fp32 lanes of one.
    """

    triple: str
    name: str
    features: tuple[str, ...]
    isa: Isa
    registers: int
    register_lanes: int

    @property
    def wide(self) -> bool:
        """Whether four sums of 64 tokens fit into its registers."""
        return self.registers * self.register_lanes >= 512

    @property
    def vnni(self) -> bool:
        """Whether it multiplies and adds four pairs of bytes at once."""
        return bool({"avx512vnni", "avxvnni"}.intersection(self.features))

    @property
    def bf16(self) -> bool:
        """Whether it multiplies and adds two pairs of bf16 at once."""
        return "avx512bf16" in self.features

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those it has instructions for, the fastest first."""
        has: dict[Precision, bool] = {"int8": self.vnni, "bf16": self.bf16, "fp32": True}
        return tuple(name for name, there in has.items() if there)

    @property
    def attributes(self) -> dict[str, str]:
        """How LLVM is told; registers of 512 bits are used where they are there."""
        switched = ",".join(f"+{feature}" for feature in self.features)
        wide = {"prefer-vector-width": "512"} if self.isa == "avx512" else {}
        return {"target-cpu": self.name, "target-features": switched} | wide


@functools.cache
def host(isa: Isa | None = None) -> Target:
    """The CPU that this runs on.

    Args:
        isa: Use less than it has: ``avx2`` or ``generic``, such as to see what older ones do.

    Raises:
        ValueError: It does not have that.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    there = {name for name, has in llvm.get_host_cpu_features().items() if has}
    best: Isa = "generic"
    if there.issuperset(_AVX2):
        best = "avx512" if there.issuperset(_AVX512) else "avx2"
    order: tuple[Isa, ...] = ("generic", "avx2", "avx512")
    isa = isa or best
    if isa not in order or order.index(isa) > order.index(best):
        raise ValueError(
            f"isa {isa}: this CPU ({llvm.get_host_cpu_name()}) has {best}; give "
            f"{' or '.join(order[: order.index(best) + 1])}, or nothing for the best"
        )
    triple = llvm.get_process_triple()
    if isa == "avx512":
        features = (*_AVX2, *_AVX512, *(name for name in _DOTS if name in there))
        return Target(triple, llvm.get_host_cpu_name(), features, isa, 32, 16)
    if isa == "avx2":
        features = (*_AVX2, *("avxvnni",) * ("avxvnni" in there))
        return Target(triple, "haswell", features, isa, 16, 8)
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    name = "x86-64" if x86 else llvm.get_host_cpu_name()
    features = () if x86 else tuple(sorted(there))
    return Target(triple, name, features, isa, 16 if x86 else 32, 4)
