"""A packed model's folder, opened: its tensors, read one by one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from sentei.files import expanded
from sentei.messages import did_you_mean, short
from sentei.models.contents import is_packed, weight_files
from sentei.pack import files
from sentei.pack.tensor import PackedTensor


def open_packed(folder: str | Path) -> PackedFolder:
    """Open a packed model's folder; nothing but names is read yet.

    Raises:
        ValueError: It holds no packed model, or damaged files.
    """
    return PackedFolder(expanded(folder))


class PackedFolder:
    """The tensors of a packed model, mapped into memory and decoded one by one."""

    def __init__(self, folder: Path) -> None:
        if not is_packed(folder):
            raise ValueError(f"{folder}: it holds no packed model; pack one with sentei pack")
        self.folder = folder
        self._files = dict[str, files.File]()
        for path in weight_files(folder):
            file = files.File(path)
            for name in file.names:
                if name in self._files:
                    raise ValueError(f"{path}: {name} is in {self._files[name].path} too")
                self._files[name] = file
        if not self._files:
            raise ValueError(f"{folder}: it holds no weights in safetensors; pack the model again")
        self.names = tuple(self._files)

    def tensor(self, name: str, out: Tensor | None = None) -> Tensor:
        """A tensor as it is in memory, dense.

        Args:
            name: Its name.
            out: Of its shape and dtype, contiguous and on the CPU, to write to; None takes new
                memory, or for a plain tensor the file's.

        Raises:
            ValueError: There is none, or it is damaged.
        """
        return self._file(name).dense(name, out)

    def packed(self, name: str) -> PackedTensor:
        """A packed tensor: its mask and its numbers.

        Raises:
            ValueError: There is none, it is plain, or it is damaged.
        """
        found = self._file(name).get(name)
        if isinstance(found, Tensor):
            raise ValueError(f"{self._file(name).path}: {name} is plain; take tensor({name!r})")
        return found

    def is_packed(self, name: str) -> bool:
        """Whether a tensor is packed, or plain.

        Raises:
            ValueError: There is none.
        """
        return name in self._file(name).packed

    def check(self) -> None:
        """Compare every checksum, and decode every tensor.

        Raises:
            ValueError: One is damaged.
        """
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(self.tensor, self.names):
                pass

    def close(self) -> None:
        """Let go of the files."""
        self._files.clear()

    def __enter__(self) -> PackedFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _file(self, name: str) -> files.File:
        if name not in self._files:
            raise ValueError(
                f"{self.folder}: it holds no tensor {short(name, 80)}"
                + did_you_mean(name, self._files)
            )
        return self._files[name]
