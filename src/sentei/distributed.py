"""Which of the processes that train together this one is."""

from __future__ import annotations

import os


def is_main() -> bool:
    """Whether this process writes: the only one, or the first of those a launcher started."""
    return int(os.environ.get("RANK", 0)) == 0
