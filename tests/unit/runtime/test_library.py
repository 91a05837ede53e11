"""Compiled kernels on disk: found again, and made again where what is found is not them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.kernels import targets
from sentei.runtime import library
from sentei.runtime.cpu import host
from sentei.runtime.ir import INDEX, POINTER, Function


def function(number: int = 7) -> Function:
    """One that writes a number."""
    f = Function("write", (("place", POINTER),))
    f.parameters[0].store(f.number(INDEX, number), 0, 8)
    return f


def written(loaded) -> int:
    place = ctypes.c_int64(0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded["write"])(ctypes.addressof(place))
    return place.value


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The cache of a process that has loaded nothing."""
    monkeypatch.setenv("SENTEI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_loaded", {})
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """What has been compiled."""
    texts, compile_ = [], library._compile
    monkeypatch.setattr(
        library, "_compile", lambda text, target: [texts.append(text), compile_(text, target)][1]
    )
    return texts


def again(monkeypatch, number: int = 7) -> int:
    """As a new process would load it."""
    monkeypatch.setattr(library, "_loaded", {})
    return written(library.load([function(number)], host()))


def test_compiled_once(folder, compiled, monkeypatch):
    assert [written(library.load([function()], host())) for _ in range(2)] == [7, 7]
    assert len(compiled) == 1
    [file] = folder.iterdir()
    assert file.suffix == ".o"
    assert again(monkeypatch) == 7
    assert len(compiled) == 1


def test_other_code_and_other_cpus_have_files_of_their_own(folder, compiled, monkeypatch):
    assert [again(monkeypatch, number) for number in (7, 8, 7)] == [7, 8, 7]
    for target in targets().values():
        assert written(library.load([function()], target)) == 7
    assert len(compiled) == len(list(folder.iterdir())) == 1 + len(targets())


SPOILT = {
    "cut short": lambda raw: raw[:-1],
    "cut in the head": lambda raw: raw[:5],
    "empty": lambda raw: b"",
    "longer": lambda raw: raw + b"\0",
    "zeros": lambda raw: bytes(len(raw)),
    "a bit": lambda raw: raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:],
    "the digest": lambda raw: raw[:20] + bytes([raw[20] ^ 1]) + raw[21:],
    "another's": lambda raw: b"\x7fELF" + raw,
    "another version's": lambda raw: raw.replace(b"kernels-1", b"kernels-0"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_is_not_whole_is_made_again(folder, compiled, monkeypatch, spoil):
    library.load([function()], host())
    [file] = folder.iterdir()
    raw = file.read_bytes()
    file.write_bytes(spoil(raw))
    assert again(monkeypatch) == 7
    assert len(compiled) == 2
    assert file.read_bytes() == raw
    assert again(monkeypatch) == 7
    assert len(compiled) == 2 and list(folder.iterdir()) == [file]


def test_a_folder_in_its_place(folder, compiled, monkeypatch):
    library.load([function()], host())
    [file] = folder.iterdir()
    file.unlink()
    (file / "something").mkdir(parents=True)
    assert again(monkeypatch) == 7
    assert len(compiled) == 2


def test_a_file_in_the_folders_place(tmp_path, compiled, monkeypatch):
    monkeypatch.setenv("SENTEI_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("mine")
    assert [again(monkeypatch) for _ in range(2)] == [7, 7]
    assert len(compiled) == 2 and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["read_bytes", "write_bytes", "mkdir"])
def test_a_disk_that_refuses(folder, compiled, monkeypatch, name):
    library.load([function()], host())

    def refuse(*args, **kwargs):
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, refuse)
        if name != "read_bytes":
            for file in folder.iterdir():
                file.unlink()
        assert again(patch) == 7
    assert len(compiled) == 2


LOADS = """
import sys
from helpers.random_encoders import batch, encoder, expected, error, outputs
from sentei.runtime.program import Program
some = encoder(seed=5)
packed = batch(some, [5, 40])
print(error(outputs(Program(some, "fp32", threads=1), packed, 32), expected(some, packed)) < 1e-4)
"""


def test_processes_at_the_same_time(folder):
    tests, source = Path(__file__).parents[2], Path(library.__file__).parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(source)])}
    started = [
        subprocess.Popen([sys.executable, "-c", LOADS], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [one.communicate()[0].strip() for one in started] == ["True", "True"]
    [file] = folder.iterdir()
    assert library._read(file) is not None


def test_where_it_is(monkeypatch):
    monkeypatch.setenv("SENTEI_CACHE", "~/mine")
    assert library.cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("SENTEI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert library.cache_folder() == Path("/caches/sentei")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library.cache_folder() == Path.home() / ".cache" / "sentei"


@pytest.mark.parametrize("named", [None, "~/mine"])
def test_a_user_without_a_home(compiled, monkeypatch, named):
    """As in a container that runs as any number: kernels are compiled, and not kept."""
    monkeypatch.delenv("SENTEI_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if named:
        monkeypatch.setenv("SENTEI_CACHE", named)

    def homeless(*args):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert library.cache_folder() is None
    assert again(monkeypatch) == 7
    assert len(compiled) == 1
