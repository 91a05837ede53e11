"""A part of the training data set aside, the same on every machine and every version of Python."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sentei.messages import counted

E = TypeVar("E")


def hold_out(
    keys: Sequence[str],
    strata: Sequence[Hashable] | None,
    *,
    fraction: float,
    seed: int,
    source: str,
) -> tuple[list[int], list[int]]:
    """Places of the examples that stay, and of those set aside.

    Each stratum gives round(its size x ``fraction``) examples, but at least one where it has two
    and never its last. Within a stratum the order is that of a hash of seed and key, which does
    not depend on the order of the file. All examples of a key follow the one that is set aside, or
    stay where they are all that a stratum has, so that no key is on both sides.

    Args:
        keys: What an example is told by.
        strata: Of which each gives its part, such as classes; None takes all as one.
        fraction: Set aside, in (0, 1).
        seed: Of the hash.
        source: Where the examples come from, for the error.

    Raises:
        ValueError: If ``fraction`` is not inside (0, 1) or nothing can be set aside.
    """
    if not 0 < fraction < 1:
        raise ValueError(
            f"eval_fraction is {fraction}: it must lie between 0 and 1, without the ends."
        )
    members = defaultdict[Hashable, list[int]](list)
    for i in range(len(keys)):
        members[strata[i] if strata is not None else None].append(i)

    def rank(i: int) -> tuple[bytes, int]:
        text = f"{seed}\0{keys[i]}"
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest(), i

    aside = set[int]()
    for stratum in members.values():
        count = min(max(1, round(len(stratum) * fraction)), len(stratum) - 1)
        aside.update(sorted(stratum, key=rank)[:count])
    chosen = {keys[i] for i in aside}
    for stratum in members.values():
        if all(keys[i] in chosen for i in stratum):
            chosen.discard(keys[max(stratum, key=rank)])
    aside = {i for i in range(len(keys)) if keys[i] in chosen}
    if not aside:
        raise ValueError(
            f"{source}: too few examples to set some aside for evaluation; "
            f"give an evaluation file with --eval."
        )
    return [i for i in range(len(keys)) if i not in aside], sorted(aside)


def set_aside(
    examples: E,
    columns: Sequence[str],
    keys: Sequence[str],
    strata: Sequence[Hashable] | None,
    noun: str,
    *,
    fraction: float,
    seed: int,
) -> tuple[E, E]:
    """Examples without a part, and the part: see :func:`hold_out`.

    Args:
        examples: A dataclass with a ``source``.
        columns: Its fields with one entry an example, or None.
        keys: What an example is told by.
        strata: Of which each gives its part.
        noun: What an example is called.
        fraction: Set aside, in (0, 1).
        seed: Of the choice.
    """
    whole: Any = examples
    chosen = hold_out(keys, strata, fraction=fraction, seed=seed, source=whole.source)
    names = part_names(fraction, seed, stratified=strata is not None)

    def part(places: list[int], what: str) -> E:
        cells = {name: getattr(whole, name) for name in columns}
        subset: E = replace(
            whole,
            **{name: old and [old[i] for i in places] for name, old in cells.items()},
            source=f"{whole.source}: {what}, {counted(len(places), noun)}",
        )
        return subset

    return part(chosen[0], names[0]), part(chosen[1], names[1])


def part_names(fraction: float, seed: int, *, stratified: bool) -> tuple[str, str]:
    """What to call the part that stays and the part set aside."""
    how = f"{'stratified ' if stratified else ''}split, seed {seed}"
    return f"{1 - fraction:.0%} of a {how}", f"{fraction:.0%} of a {how}"
