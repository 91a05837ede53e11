"""Class names: in the order in which a model knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentei.messages import counted, listing
from sentei.models.classes import placeholders


def renumber(counts: Mapping[str, int], names: Sequence[str], source: str) -> dict[str, int]:
    """The number of each class name that occurs, under another order of the names.

    A model that only has the placeholder names LABEL_0, LABEL_1, ... takes the labels 0, 1, ...
    Capitals make no difference, unless two names differ by them alone.

    Args:
        counts: How often each name occurs.
        names: The names in their order, such as a saved model's.
        source: Where the labels come from, for the error.

    Raises:
        ValueError: If a name that occurs has no place in ``names``.
    """
    index = {name: i for i, name in enumerate(names)}
    if tuple(names) == placeholders(len(names)):
        index |= {str(i): i for i in range(len(names))}
    folded = {name.casefold(): i for name, i in index.items()}
    if len(folded) == len(index):
        index |= {name: folded[name.casefold()] for name in counts if name.casefold() in folded}
    if unknown := {name: count for name, count in counts.items() if name not in index}:
        cases = [f"{name!r} ({counted(count, 'row')})" for name, count in unknown.items()]
        fix = "Correct these rows or take them out."
        if len(unknown) == len(counts):
            fix = "If they are the same under other names, write the model's into the data."
        raise ValueError(
            f"{source}: label {listing(cases)} is not among the labels that the model is "
            f"trained for: {listing(map(repr, names))}. {fix}"
        )
    return {name: index[name] for name in counts}
