"""Kernels as machine code: compiled once for a CPU, kept on disk, loaded in milliseconds.

The object file is called after a digest of all that it was made of, and holds a digest of itself:
one that is cut short, damaged or another's is not loaded but made again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentei.files import replacing
from sentei.runtime.cpu import Target
from sentei.runtime.ir import Function, module

_HEAD = b"sentei-kernels-1\n"
_lock = threading.Lock()
_loaded: dict[str, Library] = {}


class Library:
    """Loaded kernels."""

    def __init__(self, engine: Any, names: Sequence[str]) -> None:
        self._engine = engine  # the code lives as long as it does
        self.names = tuple(names)
        self._addresses = {name: engine.get_function_address(name) for name in names}

    def __getitem__(self, name: str) -> int:
        return int(self._addresses[name])


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: ``SENTEI_CACHE``, or the user's folder for such.

    None where a user has no home: then nothing is kept.
    """
    named = os.environ.get("SENTEI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "sentei"
    except RuntimeError:
        return None


def load(functions: Sequence[Function], target: Target) -> Library:
    """The functions as machine code, out of the cache if it has them."""
    import llvmlite
    import llvmlite.binding as llvm

    text = module(functions, target.triple, target.attributes)
    version = f"{llvmlite.__version__} {llvm.llvm_version_info} {target}"
    key = hashlib.sha256(f"{version}\n{text}".encode()).hexdigest()
    with _lock:
        if key not in _loaded:
            folder = cache_folder()
            file = folder / "kernels" / f"{key[:40]}.o" if folder else None
            code = _read(file) if file else None
            if code is None:
                code = _compile(text, target)
                if file:
                    _write(file, code)
            _loaded[key] = _link(code, [function.name for function in functions])
        return _loaded[key]


def _machine(target: Target) -> Any:
    import llvmlite.binding as llvm

    features = ",".join(f"+{feature}" for feature in target.features)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.name, features=features, opt=3, reloc="pic", codemodel="default", jit=True
    )


def _compile(text: str, target: Target) -> bytes:
    import llvmlite.binding as llvm

    machine = _machine(target)
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return bytes(machine.emit_object(parsed))


def _link(code: bytes, names: Sequence[str]) -> Library:
    import llvmlite.binding as llvm

    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Library(engine, names)


def _read(file: Path) -> bytes | None:
    try:
        raw = file.read_bytes()
    except OSError:
        return None
    head, digest, code = raw[: len(_HEAD)], raw[len(_HEAD) :][:32], raw[len(_HEAD) + 32 :]
    return code if head == _HEAD and digest == hashlib.sha256(code).digest() else None


def _write(file: Path, code: bytes) -> None:
    """Keep it for the next process; a disk that cannot take it costs that one time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(file) as unfinished:
            unfinished.write_bytes(_HEAD + hashlib.sha256(code).digest() + code)
    except OSError:
        pass
