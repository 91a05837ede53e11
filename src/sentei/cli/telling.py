"""What says what is going on, where there is no training to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.text import Text

from sentei.cli.app import errors
from sentei.messages import printable


@contextmanager
def telling(json: bool) -> Iterator[Callable[[str], None]]:
    """One line that changes, or, into a file, what is prepared; nothing beside JSON."""
    if json:
        yield lambda text: None
    elif errors.is_terminal:
        with errors.status("") as status:
            yield lambda text: status.update(Text(printable(f"{text} ...")))
    else:
        yield lambda text: None if text.startswith("Round") else errors.print(f"{text} ...")
