"""Folders of packed models: written, opened, and made plain again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from sentei._version import VERSION
from sentei.files import expanded, replacing
from sentei.models.card import mark_packed, mark_unpacked
from sentei.models.contents import PACKED, is_packed, weight_files
from sentei.models.folder import check_free, copy_around, copy_manifest
from sentei.models.pretrained import class_named, load_config, make_empty
from sentei.pack import files, format, zstd
from sentei.pack.encoding import choose_coding, encode
from sentei.pack.opened import open_packed
from sentei.pack.tensor import PackedTensor
from sentei.pack.values import to_float32
from sentei.records import Record
from sentei.untrusted import read_json, reading

Array = npt.NDArray[Any]
Values = Literal["fp32", "bf16", "fp16", "int8"]


class TensorRecord(Record):
    """One packed tensor: what it was, what it is written as, and how far it is from what it was.

    ``error`` is the root of the mean square of the differences over that of the numbers.
    """

    name: str
    shape: tuple[int, ...]
    coding: str
    values: str
    nonzeros: int
    bytes_before: int
    bytes: int
    error: float


class Packed(Record):
    """What packing a folder came to.

    Bytes are of the files of weights. ``plain`` is the bytes of tensors that are as they were.
    """

    tensors: tuple[TensorRecord, ...]
    plain: int
    bytes_before: int
    bytes: int


_Done = tuple[PackedTensor | Tensor, TensorRecord | None]
_Named = tuple[str, _Done]


def pack(
    folder: str | Path,
    out: str | Path,
    *,
    values: Values = "bf16",
    embeddings: Values = "bf16",
    compress: bool = True,
    shard: str = "5GB",
    trust_remote_code: bool = False,
) -> Packed:
    """Write a model's folder again with small files of weights.

    Matrices of which a tenth or more is zero are written as a mask and the numbers that are not,
    tables of embeddings in few bytes, and all else as it is. What lies around the model goes along.

    Args:
        folder: Of the model, with weights in safetensors.
        out: A new or empty folder.
        values: What the numbers of sparse matrices are written as. Those that have no more bytes
            than it stay what they are.
        embeddings: The same for tables of embeddings, sparse or not; fp32 keeps every bit.
        compress: Whether to compress with zstd what that makes smaller.
        shard: Most bytes of a file, such as ``5GB``.
        trust_remote_code: Whether code that comes with the model may be run.

    Returns:
        What became of each tensor, and of the whole.

    Raises:
        ValueError: The folder holds no such model, or numbers that cannot be written as asked.
        ModuleNotFoundError: It is to be compressed, and the extra ``pack`` is not installed.
    """
    folder, out = expanded(folder), expanded(out)
    check_free(out)
    most = _bytes(shard)
    _check_kind("values", values)
    _check_kind("embeddings", embeddings)
    if compress:
        zstd.package("to compress")
    sources = _sources(folder)
    tables = _tables(folder, trust_remote_code=trust_remote_code)

    def packed(name: str, tensor: Tensor) -> _Done:
        kind = embeddings if name in tables else values
        return _packed(name, tensor, kind, table=name in tables, compress=compress)

    with replacing(out.resolve()) as unfinished:
        unfinished.mkdir(parents=True)
        records, plain = _write(_tensors(sources, packed), unfinished, most)
        about = {"version": format.VERSION, "values": values, "embeddings": embeddings}
        _go_along(folder, unfinished, {"quant_method": PACKED, **about})
        written = sum(file.stat().st_size for file in weight_files(unfinished))
    return Packed(
        tensors=tuple(records),
        plain=plain,
        bytes_before=sum(file.stat().st_size for file in sources),
        bytes=written,
    )


def unpack(folder: str | Path, out: str | Path, *, shard: str = "5GB") -> None:
    """Write a packed model's folder again as any other.

    Args:
        folder: Of the packed model.
        out: A new or empty folder.
        shard: Most bytes of a file, such as ``5GB``.

    Raises:
        ValueError: The folder holds no packed model, or one that is damaged.
    """
    folder, out = expanded(folder), expanded(out)
    check_free(out)
    most = _bytes(shard)
    with open_packed(folder) as packed, replacing(out.resolve()) as unfinished:
        unfinished.mkdir(parents=True)
        _save(unfinished, ((name, packed.tensor(name)) for name in packed.names), most)
        _go_along(folder, unfinished, None)


def _go_along(folder: Path, out: Path, quantised: dict[str, Any] | None) -> None:
    """Copy what lies around a model's weights, and say in its config how they are written."""
    copy_around(folder, out)
    copy_manifest(folder, out)
    config = read_json(folder / "config.json")
    config.pop("quantization_config", None)
    if quantised is not None:
        config["quantization_config"] = quantised
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if quantised is None:
        mark_unpacked(out)
    else:
        mark_packed(out, _account(quantised))


def _account(quantised: dict[str, Any]) -> str:
    """How a model's numbers are written, in sentences for its card."""
    return (
        f"Its weights are packed with Sentei {VERSION}: the numbers of sparse matrices in "
        f"{quantised['values']}, those of embeddings in {quantised['embeddings']}. After `import "
        "sentei`, transformers loads them as any others; `sentei unpack` writes a model that loads "
        "without it."
    )


def _check_kind(option: str, kind: str) -> None:
    if kind not in get_args(Values):
        raise ValueError(f"{option}={kind!r}: it must be fp32, bf16, fp16 or int8")


def _sources(folder: Path) -> list[Path]:
    if is_packed(folder):
        raise ValueError(f"{folder}: it is packed already; unpack it, or take what it was made of")
    found = weight_files(folder)
    if not found or any(file.suffix != ".safetensors" for file in found):
        raise ValueError(
            f"{folder}: it holds no weights in safetensors; load the model and write it with "
            "save_pretrained"
        )
    return found


def _tables(folder: Path, *, trust_remote_code: bool) -> set[str]:
    trust: Any = {"trust_remote_code": trust_remote_code}
    config = load_config(folder, **trust)
    named = next(iter(config.architectures or ()), None)
    model_class = class_named(folder, config, named, **trust) if named else AutoModel
    return tables_of(make_empty(model_class, config, **trust))


def tables_of(model: PreTrainedModel) -> set[str]:
    """The names that a model's embeddings may have in its files."""
    found = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    }
    prefix = f"{model.base_model_prefix}."
    return found | {name.removeprefix(prefix) for name in found} | {prefix + name for name in found}


def compact(
    name: str, tensor: Tensor, kind: Values, *, table: bool, compress: bool
) -> PackedTensor | None:
    """A tensor packed; None where it stays as it is.

    Args:
        name: Of the tensor.
        tensor: On the CPU.
        kind: What its numbers are written as, at most.
        table: Whether it is one of embeddings, which are packed without zeros too.
        compress: Whether to compress with zstd what that makes smaller.

    Raises:
        ValueError: A number cannot be written so.
    """
    dtype = files.DTYPES.get(tensor.dtype)
    if dtype is None or tensor.ndim < 2:
        return None
    array = files.to_numpy(tensor)
    coding = choose_coding(array, compress=compress)
    if coding == "dense" and not table:
        return None
    made = encode(name, array, dtype=dtype, kind=kind, coding=coding, compress=compress)
    return made if format.size(made) < tensor.nbytes else None


def _packed(name: str, tensor: Tensor, kind: Values, *, table: bool, compress: bool) -> _Done:
    made = compact(name, tensor, kind, table=table, compress=compress)
    if made is None:
        return tensor, None
    record = TensorRecord(
        name=name,
        shape=tuple(tensor.shape),
        coding=made.coding,
        values=made.values,
        nonzeros=made.nonzeros,
        bytes_before=tensor.nbytes,
        bytes=format.size(made),
        error=_error(files.to_numpy(tensor).reshape(-1), made),
    )
    return made, record


def _error(flat: Array, made: PackedTensor) -> float:
    """The root of the mean square of what rounding changed, over that of the numbers."""
    if made.values == made.dtype:
        return 0.0
    off = whole = 0.0
    for where, numbers in made.pieces():
        before, after = (to_float32(one, made.dtype) for one in (flat[where], numbers))
        finite = np.isfinite(before)
        before, after = (one[finite].astype(np.float64) for one in (before, after))
        off += float(np.square(after - before).sum())
        whole += float(np.square(before).sum())
    return float((off / whole) ** 0.5) if whole else 0.0


def _tensors(sources: list[Path], work: Callable[[str, Tensor], _Done]) -> Iterator[_Named]:
    """The tensors of files, packed; as many are worked on as there are threads."""

    def one(name: str) -> _Named:
        with reading(source, files.FIX):
            tensor: Tensor = opened.get_tensor(name)
        try:
            return name, work(name, tensor)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for source in sources:
            with reading(source, files.FIX):
                opened: Any = safe_open(source, framework="pt")
                names = list(opened.keys())
            yield from pool.map(one, names)


def _write(tensors: Iterator[_Named], folder: Path, most: int) -> tuple[list[TensorRecord], int]:
    records, plain = list[TensorRecord](), 0

    def noted() -> Iterator[tuple[str, PackedTensor | Tensor]]:
        nonlocal plain
        for name, (tensor, record) in tensors:
            if record is None:
                plain += tensor.nbytes
            else:
                records.append(record)
            yield name, tensor

    _save(folder, noted(), most)
    return records, plain


def _save(folder: Path, tensors: Iterator[tuple[str, PackedTensor | Tensor]], most: int) -> None:
    """Write tensors to as many files as it takes, and an index where it takes several."""
    shards, shard, held = list[dict[str, int]](), dict[str, PackedTensor | Tensor](), 0

    def flush() -> None:
        nonlocal shard, held
        files.write(folder / f"{len(shards)}.safetensors", shard)
        shards.append({name: _size(one) for name, one in shard.items()})
        shard, held = {}, 0

    for name, tensor in tensors:
        if shard and held + _size(tensor) > most:
            flush()
        shard[name] = tensor
        held += _size(tensor)
    flush()
    if len(shards) == 1:
        (folder / "0.safetensors").rename(folder / SAFE_WEIGHTS_NAME)
        return
    where = dict[str, str]()
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{number}.safetensors").rename(folder / file)
        where |= dict.fromkeys(names, file)
    total = sum(sum(names.values()) for names in shards)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    text = json.dumps(index, indent=2) + "\n"
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(text, encoding="utf-8")


def _size(tensor: PackedTensor | Tensor) -> int:
    return tensor.nbytes if isinstance(tensor, Tensor) else format.size(tensor)


def _bytes(size: str) -> int:
    """``5GB`` as a number.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"(\d{1,9})\s*(B|KB|MB|GB)", str(size).strip(), re.IGNORECASE)
    if not found or not int(found[1]):
        raise ValueError(f"shard={size!r}: it must be a number of bytes, such as 500MB or 5GB")
    return int(found[1]) * _UNITS[found[2].upper()]


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
