"""How far LEAP's ratios come in a short run, by the memory of Adam for sigma's squared gradients.

The conformance suite's network, 1,024 prunable weights, asked for 90 %; the count is left as it
comes.
"""

from __future__ import annotations

import warnings

import sentei
from benchmarks import machine
from sentei.testing import Training


def main() -> None:
    warnings.simplefilter("ignore", sentei.SenteiWarning)
    rows, reached = ["| steps | beta2 | sparsity reached |", "|---|---|---|"], {}
    for steps in (200, 1000):
        for beta2 in (0.999, 0.9):
            recipe = sentei.leap(0.9, ratio_beta2=beta2, settle=None)
            pruner = Training(recipe, steps=steps).run(steps).pruner
            assert pruner is not None
            sparsity = pruner.pruned / pruner.prunable
            reached[f"{steps} {beta2}"] = sparsity
            rows.append(f"| {steps} | {beta2} | {sparsity:.3f} |")
    machine.write("leap_memory", "\n".join(rows), {"reached": reached})


if __name__ == "__main__":
    main()
