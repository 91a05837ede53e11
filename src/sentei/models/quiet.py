"""What transformers says: errors only, while Sentei speaks for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def errors_only() -> Iterator[None]:
    """No warnings while the block lasts: what they would say is checked or expected."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def quiet_transformers() -> None:
    """Leave the terminal to Sentei: no bars and no advice from transformers, errors only."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
