"""``sentei methods``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from sentei import methods as known_methods
from sentei.cli.app import JsonOption, output, show_json, verb


@verb
def methods(
    action: Annotated[str, typer.Argument(help="list, or show.", show_default=False)] = "list",
    name: Annotated[str, typer.Argument(help="The method, or a pattern such as 'pla*'.")] = "",
    json: JsonOption = False,
) -> None:
    """List the pruning methods, or show one: its idea, formula, cost and recipe."""
    if action == "list":
        _list(name or "*", json)
    elif action == "show":
        _show(name, json)
    else:
        raise ValueError(f"sentei methods {action}: say list or show NAME")


def _list(pattern: str, json: bool) -> None:
    cards = known_methods.cards(pattern)
    if json:
        show_json([{"name": c.name, "summary": c.summary, "paper": c.paper} for c in cards])
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("method", "bytes/weight", "what it does", "paper"):
        table.add_column(column)
    for card in cards:
        table.add_row(card.name, str(card.bytes_per_weight), card.summary, card.paper)
    output.print(table)


def _show(name: str, json: bool) -> None:
    import inspect
    import sys

    from sentei import serialization

    method = known_methods.find(name)
    recipe = method.build()
    if json:
        facts = {"name": method.name, "summary": method.summary, "paper": method.paper}
        show_json(
            {
                **facts,
                "recipe": serialization.to_dict(recipe),
                "published": dict(method.published),
            }
        )
        return
    card = sys.modules[method.build.__module__].__doc__ or ""
    output.print(inspect.cleandoc(card))
    output.print("\nIts recipe, complete (change values with --set):\n")
    output.print(serialization.dump(recipe))
    if method.published:
        values = ", ".join(f"{key}={value}" for key, value in method.published.items())
        output.print(f"Its authors' settings, {name}:published, have {values}.")
