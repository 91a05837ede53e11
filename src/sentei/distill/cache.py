"""A teacher's answers on disk: each example asks it once, in whatever batch it comes again.

A folder holds ``cache.json`` (whose answers, and their shapes), ``answers.bin`` (numbers end to
end) and ``index.bin`` (a record for each example). Numbers are written before their record, so
whatever a stop leaves unfinished is passed over and written again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FORMAT = 1
_RECORD = struct.Struct("<16sQIIQ")  # key, offset, tokens, CRC, bytes

Shape = list[int | str]
"""Of one example's tensor; ``"L"`` stands for its number of tokens."""


class TeacherCache:
    """Keeps a teacher's answers, without padding, by the tokens they answer.

    Args:
        folder: Made if it does not exist. It serves one teacher and one choice of layers; one
            process at a time.
        dtype: What numbers are kept in; float16 halves the folder and rounds.

    Raises:
        ValueError: The folder holds something else, or is in use by another process.
    """

    def __init__(
        self, folder: str | Path, *, dtype: Literal["float32", "float16"] = "float32"
    ) -> None:
        self.folder = Path(folder)
        self.dtype = dtype
        self._teacher = ""
        self._layers: dict[str, list[int]] = {}
        self._needs: dict[str, list[int]] = {}  # the same, each once
        self._shapes: list[Shape] = []
        self._index: dict[bytes, tuple[int, int, int, int]] = {}
        self._unchecked: set[bytes] = set()
        self._answers: BinaryIO | None = None
        self._records: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self._end = 0

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        if key in self._unchecked:  # from an earlier process: a crash of the machine can tear it
            self._unchecked.discard(key)
            offset, _, crc, size = self._index[key]
            if zlib.crc32(self._bytes(offset, size)) != crc:
                del self._index[key]
        return key in self._index

    # ---------------------------------------------------------------------------- opening

    def bind(self, teacher: str, needs: Mapping[str, Sequence[int]]) -> None:
        """Open the folder for one teacher.

        Args:
            teacher: Its :func:`fingerprint`.
            needs: The layers kept: ``hidden`` (0 is the embedding output) and ``attention``.

        Raises:
            ValueError: It holds another teacher's answers, or other layers or numbers.
        """
        self.close()
        self._index, self._shapes, self._end = {}, [], 0
        self._teacher = teacher
        self._needs = {name: list(dict.fromkeys(layers)) for name, layers in needs.items()}
        self._layers = {name: list(layers) for name, layers in needs.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._answers = (self.folder / "answers.bin").open("a+b")
        self._lock(self._answers)
        header = self.folder / "cache.json"
        if not header.is_file():
            if self._answers.seek(0, os.SEEK_END):
                raise ValueError(f"{self.folder}: holds answers without cache.json; name another")
            self._records = (self.folder / "index.bin").open("wb")
            return
        try:
            found = json.loads(header.read_text(encoding="utf-8"))
            self._refuse_other(found)
            self._shapes = found["shapes"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{header}: damaged ({error}); name another folder") from error
        self._load_index()

    def _refuse_other(self, found: dict[str, Any]) -> None:
        wanted = self._header()
        reasons = {
            "format": "was written by another version of Sentei",
            "teacher": "holds the answers of another teacher",
            "layers": "holds other layers",
            "dtype": f"holds {found.get('dtype')} numbers",
        }
        for name, reason in reasons.items():
            if found[name] != wanted[name]:
                raise ValueError(
                    f"{self.folder}: {reason}; name another folder, or remove this one"
                )

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "teacher": self._teacher,
            "layers": self._needs,
            "dtype": self.dtype,
            "shapes": self._shapes,
        }

    def _load_index(self) -> None:
        assert self._answers is not None
        size = self._answers.seek(0, os.SEEK_END)
        path = self.folder / "index.bin"
        raw = path.read_bytes() if path.is_file() else b""
        whole = len(raw) - len(raw) % _RECORD.size
        kept = 0
        for record in _RECORD.iter_unpack(raw[:whole]):
            key, offset, length, crc, count = record
            if offset != self._end or offset + count > size:
                break
            self._index[key] = (offset, length, crc, count)
            self._end, kept = offset + count, kept + 1
        self._unchecked = set(self._index)
        self._answers.truncate(self._end)
        self._records = path.open("ab")
        self._records.truncate(kept * _RECORD.size)

    @staticmethod
    def _lock(file: BinaryIO) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{Path(file.name).parent}: in use by another process; give each its own folder"
            ) from error

    @property
    def is_open(self) -> bool:
        """Whether it is bound to a teacher, and its folder held."""
        return self._answers is not None

    def close(self) -> None:
        """Let another process have the folder; :meth:`bind` opens it again."""
        for file in (self._map, self._records, self._answers):
            if file is not None:
                file.close()
        self._map = self._records = self._answers = None

    # ------------------------------------------------------------------------------ batches

    def keys(self, batch: Mapping[str, Any], precision: str) -> list[bytes]:
        """A key for each example: a hash of its tokens without padding, and of the precision.

        Raises:
            ValueError: The batch holds something else that a model reads.
        """
        known = {"input_ids", "token_type_ids", "attention_mask"}
        if other := {k for k, v in batch.items() if v is not None and k not in known}:
            raise ValueError(
                f"the batch holds {', '.join(sorted(other))}: a teacher's cache knows examples by "
                "their input_ids and token_type_ids; train without a cache"
            )
        columns = [
            batch[name].cpu().numpy().astype("<i8")
            for name in ("input_ids", "token_type_ids")
            if batch.get(name) is not None
        ]
        keys = []
        for row, places in enumerate(_places(batch)):
            digest = hashlib.blake2b(precision.encode(), digest_size=16)
            for column in columns:
                digest.update(column[row, places].tobytes() + b"\0")
            keys.append(digest.digest())
        return keys

    def add(
        self,
        keys: Sequence[bytes],
        rows: Sequence[int],
        batch: Mapping[str, Any],
        logits: Tensor,
        hidden: Sequence[Tensor],
        attention: Sequence[Tensor],
    ) -> None:
        """Append what the teacher said to these rows of a batch."""
        assert self._answers is not None and self._records is not None, "bind comes first"
        self._begin(logits, hidden, attention)
        places = _places(batch)
        states = _unique(hidden, self._layers["hidden"], self._needs["hidden"])
        scores = _unique(attention, self._layers["attention"], self._needs["attention"])
        for row in rows:
            if keys[row] in self._index:  # twice in this batch
                continue
            at = torch.from_numpy(places[row])
            parts = [logits[row].cpu()[at] if logits.ndim > 2 else logits[row].cpu()]
            parts += [state[row].cpu()[at] for state in states]
            parts += [score[row].cpu()[:, at][:, :, at] for score in scores]
            data = b"".join(_full(part).numpy().astype(self.dtype).tobytes() for part in parts)
            crc = zlib.crc32(data)
            self._answers.write(data)
            record = (self._end, len(at), crc, len(data))
            self._index[keys[row]] = record
            self._records.write(_RECORD.pack(keys[row], *record))
            self._end += len(data)
        self._answers.flush()
        self._records.flush()

    def read(
        self, keys: Sequence[bytes], batch: Mapping[str, Any], device: torch.device
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits, hidden states and attention scores of a batch, padded with zeros."""
        places = _places(batch)
        tokens = batch["input_ids"].shape[1]
        whole = [
            np.zeros((len(keys), *(tokens if n == "L" else int(n) for n in shape)), np.float32)
            for shape in self._shapes
        ]
        for row, key in enumerate(keys):
            offset, length, _, size = self._index[key]
            data = np.frombuffer(self._bytes(offset, size), self.dtype)
            begin = 0
            for target, shape in zip(whole, self._shapes, strict=True):
                sizes = [length if n == "L" else int(n) for n in shape]
                end = begin + int(np.prod(sizes))
                _put(target[row], data[begin:end].reshape(sizes), shape, places[row])
                begin = end
        tensors = [torch.from_numpy(array).to(device) for array in whole]
        count = len(self._needs["hidden"])
        states = dict(zip(self._needs["hidden"], tensors[1 : count + 1], strict=True))
        scores = dict(zip(self._needs["attention"], tensors[count + 1 :], strict=True))
        return (
            tensors[0],
            [states[layer] for layer in self._layers["hidden"]],
            [scores[layer] for layer in self._layers["attention"]],
        )

    def _begin(self, logits: Tensor, hidden: Sequence[Tensor], attention: Sequence[Tensor]) -> None:
        """Write down the shapes, once."""
        if self._shapes:
            return
        kept: list[Shape] = [[*(["L"] if logits.ndim > 2 else []), logits.shape[-1]]]
        kept += [["L", hidden[0].shape[-1]] for _ in self._needs["hidden"]]
        kept += [[attention[0].shape[1], "L", "L"] for _ in self._needs["attention"]]
        self._shapes = kept
        header, text = self.folder / "cache.json", json.dumps(self._header(), indent=1)
        unfinished = header.with_suffix(".unfinished")
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, header)

    def _bytes(self, offset: int, size: int) -> memoryview:
        assert self._answers is not None
        if self._map is None or offset + size > len(self._map):
            self._answers.flush()
            self._map = mmap.mmap(self._answers.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)[offset : offset + size]


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's weights and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def expected_bytes(
    lengths: Sequence[int] | NDArray[np.int64],
    *,
    labels: int,
    hidden: tuple[int, int] = (0, 0),
    attention: tuple[int, int] = (0, 0),
    itemsize: int = 4,
) -> int:
    """Bytes of a full cache.

    Args:
        lengths: Tokens of each distinct example.
        labels: Numbers in its logits.
        hidden: States kept (layers and the embedding output), and their width.
        attention: Layers whose scores are kept, and their heads.
        itemsize: Bytes of a number.
    """
    tokens = np.asarray(lengths, np.int64)
    numbers = labels * tokens.size + hidden[0] * hidden[1] * int(tokens.sum())
    numbers += attention[0] * attention[1] * int(np.square(tokens).sum())
    return numbers * itemsize + _RECORD.size * tokens.size


def _places(batch: Mapping[str, Any]) -> list[NDArray[np.int64]]:
    """Where each row's real tokens are."""
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    if mask is None:
        return [np.arange(ids.shape[1])] * ids.shape[0]
    return [np.flatnonzero(row) for row in mask.cpu().numpy()]


def _put(
    target: NDArray[np.float32], data: NDArray[Any], shape: Shape, at: NDArray[np.int64]
) -> None:
    match shape:
        case [_, "L", "L"]:
            target[:, at[:, None], at] = data
        case ["L", _]:
            target[at] = data
        case _:
            target[:] = data


def _unique(tensors: Sequence[Tensor], layers: Sequence[int], kept: Sequence[int]) -> list[Tensor]:
    found = dict(zip(layers, tensors, strict=True))
    return [found[layer] for layer in kept]


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
