"""The exact cut over BERT-base's 84.9 M scores, against ``torch.kthvalue``.

All ways are interleaved in one process, every round on newly moved scores, and must find the same
threshold. Scores are products of two log-normal averages, like PLATON's.

``--device cuda`` compares the published manner on a GPU with the selection that stays there, and
both with the CPU's threshold and masks. There has been no GPU to run it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks import machine
from sentei.pruning.cut import Bracket, find_cut, prune_
from sentei.pruning.selection import Rows, Selection, Wanted
from sentei.tensors import Scores

SIZES = [768 * 768] * 48 + [768 * 3072] * 24
SPARSITY = 0.9


def stored(tensors: list[Tensor]) -> list[Scores]:
    def reader(tensor: Tensor) -> Callable[[int, int], Tensor]:
        return lambda start, stop: tensor[start:stop]

    return [Scores(t.numel(), t.device, reader(t)) for t in tensors]


def drawn() -> list[Tensor]:
    """The scores at the start."""
    return [torch.randn(n).exp_().mul_(torch.randn(n).exp_()).mul_(1e-12) for n in SIZES]


def move_(scores: list[Tensor]) -> None:
    """As one window of PLATON moves the averages: by a few percent."""
    for tensor in scores:
        tensor.mul_(torch.empty_like(tensor).uniform_(0.97, 1.03))


def on_device(scores: list[Tensor], device: torch.device, rounds: int) -> None:
    """Time two ways on a GPU, and hold their cut to the CPU's."""
    count = round(sum(SIZES) * SPARSITY)
    lines = {size: [i for i, one in enumerate(SIZES) if one == size] for size in set(SIZES)}
    times: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first one is not counted
        move_(scores)
        matrices = [
            torch.stack([scores[i] for i in places]).to(device) for places in lines.values()
        ]
        keeps = [torch.ones_like(matrix, dtype=torch.bool) for matrix in matrices]
        rows = [
            Rows(partial(matrix.view, matrix.shape), keep, places, [0] * len(places))
            for matrix, keep, places in zip(matrices, keeps, lines.values(), strict=True)
        ]
        torch.cuda.synchronize()
        start = time.perf_counter()
        together = torch.cat([matrix.view(-1) for matrix in matrices])
        kth = float(together.kthvalue(count).values)
        middle = time.perf_counter()
        threshold = Selection(rows, [Wanted(count)]).wait().thresholds[0]
        end = time.perf_counter()
        times.setdefault("torch.cat and kthvalue", []).append(middle - start)
        times.setdefault("sentei, masks written too", []).append(end - middle)
        cut, _ = find_cut(stored(scores), count)
        masks = [torch.ones(n, dtype=torch.bool) for n in SIZES]
        prune_(masks, stored(scores), cut)
        assert kth == threshold == cut.threshold, "the thresholds differ"
        for keep, places in zip(keeps, lines.values(), strict=True):
            assert torch.equal(keep.cpu(), torch.stack([masks[i] for i in places])), "masks differ"
    medians = {name: 1e3 * statistics.median(seconds[1:]) for name, seconds in times.items()}
    table = "\n".join(
        [
            f"Exact cut of {count:,} of {sum(SIZES):,} scores on {torch.cuda.get_device_name()}; "
            f"median of {rounds} interleaved rounds; thresholds and masks are the CPU's.",
            "",
            "| way | ms |",
            "|---|---|",
            *(f"| {name} | {median:.2f} |" for name, median in medians.items()),
        ]
    )
    machine.write(f"select_{device.type}", table, {"seconds": times})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    rounds = arguments.rounds

    torch.manual_seed(0)
    scores = drawn()
    if arguments.device != "cpu":
        on_device(scores, torch.device(arguments.device), rounds)
        return
    total = sum(SIZES)
    count = round(total * SPARSITY)
    times: dict[str, list[float]] = {}
    warm: Bracket | None = None

    ways = [
        "torch.kthvalue, scores already in one tensor",
        "torch.cat and kthvalue",
        "sentei, cold",
        "sentei, warm",
    ]

    def timed(name: str, work: Callable[..., float], *arguments: object) -> float:
        start = time.perf_counter()
        threshold = work(*arguments)
        times.setdefault(name, []).append(time.perf_counter() - start)
        return threshold

    def cut(bracket: Bracket | None) -> float:
        nonlocal warm
        result, warm = find_cut(stored(scores), count, bracket)
        assert result.below + result.ties == count
        return result.threshold

    def kth(values: Tensor) -> float:
        return float(values.kthvalue(count).values)

    cut(None)
    for _ in range(rounds):
        move_(scores)
        bracket = warm
        together = torch.cat(scores)
        thresholds = {
            timed(ways[0], kth, together),
            timed(ways[1], lambda: kth(torch.cat(scores))),
            timed(ways[2], cut, None),
            timed(ways[3], cut, bracket),
        }
        del together
        assert len(thresholds) == 1, f"the ways disagree: {thresholds}"

    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    reference = medians[ways[0]]
    rows = [
        f"| {name} | {1e3 * median:.0f} | {reference / median:.1f}x |"
        for name, median in medians.items()
    ]
    table = "\n".join(
        [
            f"Exact cut of {count:,} of {total:,} scores in {len(SIZES)} tensors; "
            f"median of {rounds} interleaved rounds; all four thresholds equal in each.",
            "",
            "| way | ms | kthvalue / it |",
            "|---|---|---|",
            *rows,
        ]
    )
    machine.write("select", table, {"seconds": times})


if __name__ == "__main__":
    main()
