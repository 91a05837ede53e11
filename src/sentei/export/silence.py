"""Quiet while others work: exporters and quantisers tell much, us and their makers."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on the terminal from those who export and quantise; errors are raised as ever."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load_openvino() -> Any:
    """OpenVINO, as a module that tells nobody of its use, and NNCF with it.

    By itself it sends a message when it is imported, from a process that a thread of it forks: a
    fork beside other threads may crash.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # both do without it where it is missing
    import openvino

    return openvino
