"""Whether pruning has become slower: this checkout's library beside another's, in turns.

What :mod:`benchmarks.overhead` times of each variant, and the cuts of :mod:`benchmarks.select`;
both libraries run under this checkout's benchmarks (see :mod:`benchmarks.turns`).

    git worktree add --detach ../before COMMIT
    python -m benchmarks.beside ../before --rounds 5

The gradients are those of real training steps, made once. ``--layers`` takes fewer layers of the
encoder, for a quick look.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import machine, overhead, select, turns
from sentei.pruning.cut import find_cut


def serve_overhead(name: str, layers: int, gradients: str) -> None:
    """Make the steps of a round of one variant whenever a line comes."""
    batches = torch.load(gradients, mmap=True)
    variant = overhead.Variant(name, overhead.classifier(layers))
    overhead.warm_up(variant, batches)

    def work() -> turns.Times:
        wall = busy = 0.0
        for step in range(overhead.STEPS):
            variant.move(batches[step % overhead.BATCHES])
            seconds = turns.timed(variant.step)
            wall, busy = wall + seconds[0] / overhead.STEPS, busy + seconds[1] / overhead.STEPS
        variant.rest()
        return {"": (wall, busy)}

    turns.serve(work)


def serve_select() -> None:
    """Cut newly moved scores whenever a line comes."""
    torch.manual_seed(0)
    scores = select.drawn()
    count = round(sum(select.SIZES) * select.SPARSITY)
    _, warm = find_cut(select.stored(scores), count)

    def work() -> turns.Times:
        nonlocal warm
        select.move_(scores)
        bracket, found = warm, []
        cold = turns.timed(lambda: found.append(find_cut(select.stored(scores), count)))
        times = turns.timed(lambda: found.append(find_cut(select.stored(scores), count, bracket)))
        warm = found[1][1]
        assert found[0][0] == found[1][0]
        return {"cold": cold, "warm": times}

    turns.serve(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="the root of the other one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--variants", nargs="*", choices=overhead.VARIANTS, metavar="VARIANT")
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_overhead(arguments.serve[0], arguments.layers, arguments.serve[1])
        return
    if arguments.serve is not None:
        serve_select()
        return
    other, rounds, layers = arguments.checkout, arguments.rounds, arguments.layers
    names = overhead.VARIANTS if arguments.variants is None else arguments.variants
    words = ["benchmarks.beside", str(other), "--layers", str(layers), "--serve"]
    found = {"select": turns.in_turns(words, other, rounds)}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/gradients.pt"
        model = overhead.classifier(layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
        torch.save(overhead.gradients_of(model, optimizer), file)
        del model, optimizer
        for name in names:
            found[name] = turns.in_turns([*words, name, file], other, rounds)
            print(name, file=sys.stderr, flush=True)
    text = (
        f"The library beside that of {turns.revision(other)}, in turns: pruning's part of a step "
        f"of the encoder, {layers} layers of it, and cuts of 84.9 M scores. Medians of "
        f"{2 * rounds} rounds, of {overhead.STEPS} steps where there are steps, each library "
        "started first in half of them; ratios are the medians of those of each round.\n\n"
    )
    text += turns.table(found)
    machine.write("beside", text, {"rounds": found})


if __name__ == "__main__":
    main()
