"""Tasks as the command declares them: from flat options."""

from __future__ import annotations

from sentei.run.options import settings_from

SEED = 42


def task_of(**options):
    return settings_from({"model": "m", **options}, {}).task
