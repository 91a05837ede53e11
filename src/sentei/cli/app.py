"""The application: how verbs are added, how errors end, and what is printed where."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from pydantic import BaseModel
from rich.console import Console

from sentei._version import VERSION
from sentei.distributed import is_main

P = ParamSpec("P")

app = typer.Typer(
    name="sentei",
    help="Prune pretrained transformers while they are fine-tuned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_silent = not is_main()

errors = Console(stderr=True, highlight=False, quiet=_silent)
output = Console(highlight=False, quiet=_silent)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]

USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command."""
    app()


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Add a verb. What the user can mend ends in one sentence; the rest keeps its traceback."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if os.environ.get("SENTEI_DEBUG"):
            function(*args, **kwargs)
            return
        as_json = bool(kwargs.get("json"))
        try:
            function(*args, **kwargs)
        except (ValueError, ModuleNotFoundError) as error:
            _end(str(error), USER_ERROR, as_json)
        except (OSError, FloatingPointError) as error:
            _end(str(error), FAILURE, as_json)
        except KeyboardInterrupt:
            _end("stopped", INTERRUPTED, as_json)

    app.command()(run)
    return run


def show_json(record: BaseModel | dict[str, Any] | list[Any]) -> None:
    """One JSON value on standard output."""
    if _silent:
        return
    data = record.model_dump(mode="json") if isinstance(record, BaseModel) else record
    print(json.dumps(data, indent=2))


def _end(message: str, code: int, as_json: bool) -> NoReturn:
    if as_json:
        show_json({"error": message})
    else:
        whoever = Console(stderr=True, highlight=False)
        whoever.print(f"[bold red]Error:[/] {_plain(message)}", soft_wrap=True)
    raise typer.Exit(code)


def _plain(text: str) -> str:
    """Square brackets in a message are text, not rich's markup."""
    return text.replace("[", r"\[")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(VERSION)
        raise typer.Exit


def warn(message: str) -> None:
    """One line on standard error."""
    errors.print(f"[yellow]{_plain(message)}[/]", soft_wrap=True)
