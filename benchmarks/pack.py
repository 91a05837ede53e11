"""How small pruned models become: beside their bounds and other codings, whole, and how fast.

    python -m benchmarks.pack RUN [RUN ...] [--only weights files speed]

Folders of finished runs of `sentei prune`, of one model at several sparsities. The committed
results are of all-MiniLM-L6-v2 on SST-2, 12,000 of whose texts are in train.tsv:

    sentei prune --model demo --train train.tsv --eval dev.tsv --text-column sentence
        --max-length 64 --group-by-length --learning-rate 1e-4 --dense-epochs 1 --epochs 2
        --method platon --sparsity 0.9 --out sst2-90

and with --model sst2-90/dense/model --epochs 1 --sparsity 0.8, and 0.5, in place of these.

weights
    The matrices that are sparse, against the same in dense fp32. The bound is the entropy of a mask
    whose entries are kept independently, and that of each byte of the numbers by itself, matrix by
    matrix. Masks are not independent, so that a coding may be below it.
files
    All of model.safetensors, and the metric of the run's evaluation data when it is loaded again.
speed
    From memory to memory that is there (zstd's own is new), all ways in turns: processor time, that
    is a second of one core, and the clock with all threads. Bytes are those of dense fp32.
    Checksums are made and compared.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import zstandard
from safetensors.torch import load_file

from benchmarks import machine
from benchmarks.measured import markdown
from sentei.models.quiet import quiet_transformers
from sentei.pack import encode, pack
from sentei.pack.encoding import choose_coding
from sentei.pack.folder import Values
from sentei.pack.format import from_bytes, to_bytes
from sentei.pack.values import narrowed, planes, quantised
from sentei.report.facts import Metric
from sentei.run.evaluate import evaluate_saved
from sentei.run.settings import Settings
from sentei.tasks import kinds

Array = npt.NDArray[Any]

KINDS: Final = ("fp32", "bf16", "int8")
FORMS: Final[tuple[tuple[Values, Values], ...]] = (
    ("fp32", "fp32"),
    ("bf16", "bf16"),
    ("bf16", "int8"),
    ("int8", "int8"),
)
"""What values and embeddings are written as."""

BEST: Final = 19
"""Level of zstd that is the smallest in usual memory, at megabytes a second."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path

    @property
    def file(self) -> Path:
        """The weights."""
        return self.folder / "model" / "model.safetensors"

    @cached_property
    def matrices(self) -> dict[str, Array]:
        """Those that are sparse."""
        found = {name: one.numpy() for name, one in load_file(self.file).items() if one.ndim == 2}
        return {name: one for name, one in found.items() if choose_coding(one) != "dense"}

    @cached_property
    def words(self) -> dict[str, Array]:
        """The table of tokens."""
        weights = load_file(self.file).items()
        return {
            name: one.numpy() for name, one in weights if name.endswith("word_embeddings.weight")
        }

    @property
    def sparsity(self) -> float:
        """Of the sparse matrices."""
        kept = sum(np.count_nonzero(one) for one in self.matrices.values())
        return 1 - kept / sum(one.size for one in self.matrices.values())

    @property
    def dense(self) -> int:
        """Bytes of the sparse matrices in fp32."""
        return sum(one.nbytes for one in self.matrices.values())

    @property
    def title(self) -> str:
        """As a table has it."""
        return f"{100 * self.sparsity:.0f} %"


# --------------------------------------------------------------------------------------- weights


def entropy(counts: Array) -> float:
    """Bits of all symbols of which there are so many each."""
    seen = counts[counts > 0].astype(float)
    return float(-(seen * np.log2(seen / seen.sum())).sum())


def bound(run: Run, kind: str) -> float:
    """Bytes that the matrices cannot be below, if all is independent."""
    bits = 0.0
    for one in run.matrices.values():
        kept = one != 0
        numbers, counts = one[kept], np.count_nonzero(kept, axis=1)
        bits += entropy(np.array([counts.sum(), one.size - counts.sum()]))
        if kind == "int8":
            numbers, scales = quantised(numbers, "fp32", counts)
            bits += 8 * scales.nbytes
        else:
            numbers = narrowed(numbers, "fp32", kind)
        bits += sum(entropy(np.bincount(plane)) for plane in planes(numbers))
    return bits / 8


def packed(run: Run, **options: Any) -> int:
    """Bytes of the matrices as they are in a file."""
    return sum(len(to_bytes(encode(n, one, **options))) for n, one in run.matrices.items())


def compressed(whole: Iterable[Any], level: int) -> int:
    """Bytes of several pieces in frames of zstd."""
    return sum(len(zstandard.ZstdCompressor(level).compress(piece)) for piece in whole)


def with_matches(run: Run, level: int) -> int:
    """Bytes of the matrices' parts in bf16 as zstd's own level compresses them."""
    found = 0
    for name, one in run.matrices.items():
        plain = encode(name, one, coding=choose_coding(one), compress=False)
        sizes = ((part.size, compressed([part.stored.data], level)) for part in plain.parts)
        found += sum(min(pair) for pair in sizes)
    return found


def of_torch(run: Run, layout: torch.layout) -> int:
    """Bytes of torch's own sparse tensors."""
    found = 0
    for one in run.matrices.values():
        with warnings.catch_warnings():  # that CSR is beta
            warnings.simplefilter("ignore", UserWarning)
            sparse = torch.from_numpy(one).to_sparse(layout=layout)
        if layout == torch.sparse_coo:
            found += sparse.indices().nbytes + sparse.values().nbytes
        else:
            parts = (sparse.crow_indices(), sparse.col_indices(), sparse.values())
            found += sum(part.nbytes for part in parts)
    return found


WEIGHTS: Final[dict[str, Callable[[Run], float]]] = {
    **{f"bound, {kind}": partial(bound, kind=kind) for kind in KINDS},
    **{f"`sentei.pack`, {kind}": partial(packed, kind=kind) for kind in KINDS},
    "`sentei.pack` without zstd, bf16": partial(packed, kind="bf16", compress=False),
    "the same parts by zstd -3, bf16": partial(with_matches, level=3),
    "bitmask alone, bf16": partial(packed, kind="bf16", coding="bitmask", compress=False),
    "bitmask alone, fp32": partial(packed, kind="fp32", coding="bitmask", compress=False),
    f"zstd -{BEST} of the plain matrices": lambda run: compressed(run.matrices.values(), BEST),
    "torch's sparse CSR": partial(of_torch, layout=torch.sparse_csr),
    "torch's sparse COO": partial(of_torch, layout=torch.sparse_coo),
}
"""How matrices may be written, and the bytes of that."""


def weights(runs: list[Run]) -> None:
    """How many times as small as dense fp32 the sparse matrices are."""
    found: dict[str, dict[str, float]] = {}
    for name, measure in WEIGHTS.items():
        found[name] = {run.title: measure(run) for run in runs}
        print(name, flush=True)
    dense = {run.title: run.dense for run in runs}
    rows = [
        [name, *(f"{dense[title] / size:.1f}x" for title, size in sizes.items())]
        for name, sizes in found.items()
    ]
    table = markdown(["smaller than dense fp32", *dense], rows)
    machine.write("pack", table, {"dense": dense, "bytes": found}, about())


# ----------------------------------------------------------------------------------------- files


def files(runs: list[Run]) -> None:
    """Bytes and metrics of whole models."""
    lines = [line for run in runs for line in forms(run)]
    rows = []
    for line in lines:
        metric, first = Metric(line["metric"]), line["first"]
        smaller, change = first["bytes"] / line["bytes"], 100 * (line["value"] - first["value"])
        value = "" if line["form"].startswith("zstd") else metric.text(line["value"])
        shown = f"{change:+.2f}" if value and line["form"] != "as it was" else ""
        size = f"{line['bytes'] / 1e6:.1f}"
        rows.append([line["sparsity"], line["form"], size, f"{smaller:.1f}x", value, shown])
    head = ["sparsity", "values, embeddings", "MB", "smaller", Metric(lines[0]["metric"]).label]
    table = markdown([*head, "change, points"], rows)
    machine.write("pack_files", table, {"lines": lines}, about())


def forms(run: Run) -> list[dict[str, Any]]:
    """A run's model as it was, compressed as a whole, and packed."""
    settings = Settings.read(run.folder / "run.yaml")
    examples = settings.task.metric

    def line(form: str, folder: Path, size: int, **facts: Any) -> dict[str, Any]:
        print(run.title, form, flush=True)
        there = settings.model_copy(update={"model": str(folder)})
        metrics = evaluate_saved(there).metrics
        name = examples or next(iter(one for one in metrics if one != "loss"))
        return {
            "sparsity": run.title,
            "form": form,
            "bytes": size,
            "metric": name,
            "value": metrics[name],
            "metrics": metrics,
            **facts,
        }

    first = line("as it was", run.folder / "model", run.file.stat().st_size)
    whole = {**first, "form": f"zstd -{BEST}"}
    whole["bytes"] = compressed([run.file.read_bytes()], BEST)
    found = [first, whole]
    for values, embeddings in FORMS:
        with tempfile.TemporaryDirectory() as at:
            done = pack(run.folder / "model", Path(at, "p"), values=values, embeddings=embeddings)
            off = {kind: _off(done.tensors, kind) for kind in ("dense", "sparse")}
            found.append(line(f"{values}, {embeddings}", Path(at, "p"), done.bytes, error=off))
    return [{**one, "first": {key: first[key] for key in ("bytes", "value")}} for one in found]


def _off(records: Iterable[Any], kind: str) -> float:
    """The largest relative error of a tensor."""
    return max(
        (one.error for one in records if (one.coding == "dense") == (kind == "dense")), default=0.0
    )


# ----------------------------------------------------------------------------------------- speed


Calls = Sequence[Callable[[], object]]
"""One for each tensor."""


def ways(tensors: dict[str, Array]) -> tuple[dict[str, Calls], dict[str, Calls]]:
    """Writing and reading, each beside a copy and zstd."""
    outs = {name: np.empty_like(one) for name, one in tensors.items()}
    frames = {name: _zstd(one) for name, one in tensors.items()}
    copy = [partial(np.copyto, outs[name], one) for name, one in tensors.items()]
    there: dict[str, Calls] = {
        "memcpy": copy,
        "zstd -3": [partial(_zstd, one) for one in tensors.values()],
    }
    back: dict[str, Calls] = {
        "memcpy": copy,
        "zstd -3": [partial(_unzstd, one) for one in frames.values()],
    }
    for kind in KINDS:
        there[kind] = [partial(_there, name, one, kind) for name, one in tensors.items()]
        records = {name: _there(name, one, kind) for name, one in tensors.items()}
        back[kind] = [partial(_back, name, one, outs[name]) for name, one in records.items()]
    return there, back


def _zstd(one: Array) -> bytes:
    return zstandard.ZstdCompressor(3).compress(one.data)


def _unzstd(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


def _there(name: str, one: Array, kind: Any) -> Array:
    return to_bytes(encode(name, one, kind=kind))


def _back(name: str, record: Array, out: Array) -> Array:
    return from_bytes(name, record).decode(out)


def timed(
    every: dict[str, Calls], rounds: int, pool: ThreadPoolExecutor
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each way in each round, in turns."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"clock": [], "processor": []} for name in every
    }
    for number in range(rounds + 1):
        for name, calls in every.items():
            clock, processor = time.perf_counter(), time.process_time()
            for done in [pool.submit(call) for call in calls]:
                done.result()
            if number:  # the first is to warm up
                seconds[name]["clock"].append(time.perf_counter() - clock)
                seconds[name]["processor"].append(time.process_time() - processor)
    return seconds


def speed(runs: list[Run], rounds: int, threads: int) -> None:
    """MB of dense fp32 a second."""
    sets = {run.title: run.matrices for run in runs}
    sets["table of tokens"] = pieces(runs[0].words)
    rows, data = [], {}
    with ThreadPoolExecutor(threads) as pool:
        for title, tensors in sets.items():
            dense = sum(one.nbytes for one in tensors.values())
            for verb, every in zip(("write", "read"), ways(tensors), strict=True):
                seconds = timed(every, rounds, pool)
                data[f"{title}, {verb}"] = {"dense": dense, "seconds": seconds}
                for name in ("processor", "clock"):
                    middle = [statistics.median(one[name]) for one in seconds.values()]
                    where = "one core" if name == "processor" else f"{threads} threads, clock"
                    cells = [f"{dense / one / 1e6:,.0f}" for one in middle]
                    rows.append([title, verb, where, *cells])
                    print(*rows[-1], flush=True)
    rows.sort(key=lambda row: row[2] != "one core")
    table = markdown(["MB of dense fp32 a second", "", "", *ways({})[0]], rows)
    facts = about() | {"threads": str(threads), "rounds": str(rounds)}
    machine.write("pack_speed", table, {"ways": data}, facts)


def pieces(tensors: dict[str, Array]) -> dict[str, Array]:
    """Large tensors in rows, as many as tensors of a layer, so that threads share them."""
    found = {}
    for name, one in tensors.items():
        for number, rows in enumerate(np.array_split(one, math.ceil(one.nbytes / 2**22))):
            found[f"{name}.{number}"] = rows
    return found


def about() -> dict[str, str]:
    """Of this run of the benchmark."""
    return {**machine.facts(), **machine.versions("zstandard", "transformers")}


def main() -> None:
    parts = {"weights": weights, "files": files, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--only", nargs="+", choices=parts, default=[*parts])
    parser.add_argument("--rounds", type=int, default=15, help="of speed")
    parser.add_argument("--threads", type=int, default=2, help="of speed")
    given = parser.parse_args()
    quiet_transformers()
    kinds.known()  # settings name one of them
    runs = sorted((Run(folder) for folder in given.runs), key=lambda run: run.sparsity)
    if "weights" in given.only:
        weights(runs)
    if "files" in given.only:
        files(runs)
    if "speed" in given.only:
        speed(runs, given.rounds, given.threads)


if __name__ == "__main__":
    main()
