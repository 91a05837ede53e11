"""What is refused before anything is loaded."""

from __future__ import annotations

import pytest

from sentei.run import prepare


@pytest.mark.parametrize(("value", "refused"), [("true", True), ("1", True), ("false", False)])
def test_a_launcher_that_wants_shards_is_refused(monkeypatch, value, refused):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    if not refused:
        prepare._check_launcher()
        return
    with pytest.raises(ValueError, match=r"the launcher asks for FSDP .*launch it for DDP"):
        prepare._check_launcher()
