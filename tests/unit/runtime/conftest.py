"""The engine over two cores: the reference, and the one that compiles."""

from __future__ import annotations

import importlib.util

import pytest

from helpers.encoder_reference import ReferenceProgram
from sentei.runtime import forward

CORES = ["reference", *(["compiled"] if importlib.util.find_spec("llvmlite") else [])]


@pytest.fixture(params=CORES)
def core(request, monkeypatch):
    """Which core runs; its products are fp32."""
    if request.param == "reference":
        use_reference(monkeypatch)
    return request.param


@pytest.fixture
def reference(monkeypatch):
    """The programs that were made, of the reference alone."""
    return use_reference(monkeypatch)


def use_reference(monkeypatch):
    made = []

    def make(encoder, options):
        made.append(ReferenceProgram(encoder, options.precision, options.threads))
        return made[-1]

    monkeypatch.setattr(forward, "make_program", make)
    return made
