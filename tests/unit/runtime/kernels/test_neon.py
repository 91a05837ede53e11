"""Kernels of plain vectors become NEON: compiled for Arm here, run nowhere."""

from __future__ import annotations

import pytest

from sentei.runtime.cpu import Target
from sentei.runtime.ir import Function, module
from sentei.runtime.kernels import attention, driver, edge, norm, product

llvm = pytest.importorskip("llvmlite.binding")

ARM = Target("aarch64-unknown-linux-gnu", "generic", ("neon",), "generic", 32, 4)


def assembly(functions: list[Function]) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(ARM.triple)
    except RuntimeError:
        pytest.skip("this llvmlite knows no Arm")
    machine = target.create_target_machine(cpu=ARM.name, features="+neon", opt=3)
    parsed = llvm.parse_assembly(module(functions, ARM.triple, ARM.attributes))
    parsed.verify()
    return machine.emit_assembly(parsed)


def test_kernels_are_vectors_and_call_nothing():
    text = assembly(
        [
            product.build(product.Form("fp32", 1, False, 64, "gelu"), ARM),
            product.build(product.Form("fp32", 4, True, 32), ARM),
            attention.build(attention.Form(64, False, True), ARM),
            norm.build("none", 16, ARM),
            edge.enter(2, 64, ARM),
            edge.leave(64, ARM),
            driver.build(),
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    calls = {words[1] for words in lines if words[:1] == ["bl"]}
    assert text.count("fmla") > 100
    assert not calls, "such as libm's fma, element by element"
