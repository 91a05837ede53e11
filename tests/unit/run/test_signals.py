"""Signals end work at once, or are noted where it can stop with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sentei.run import signals
from sentei.run.signals import SIGNALS, Listener, Stopped, raising, status


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_what_can_end_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, raising():
        signal.raise_signal(number)
    assert stopped.value.number == number and status(number) == 128 + number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_training_notes_the_first_signal_and_the_next_is_not_held_back(number, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    listener = Listener()
    with raising(), listener.listening():
        assert not listener.heard
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # the same, by way of a launcher
        assert listener.heard and listener.number == number
        clock[0] += 5
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_left_alone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_hears_none_and_works():
    done = []

    def work() -> None:
        with raising(), Listener().listening():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def test_a_terminal_that_is_gone_fails_nobody(tmp_path):
    """Who writes to a terminal after it hung up gets an error."""
    ours, theirs = os.openpty()
    script = (
        "import os, signal, sys; from pathlib import Path; "
        "from sentei.run.signals import Listener\n"
        "with Listener().listening():\n"
        "    Path(sys.argv[1]).touch()\n"
        "    signal.pause()\n"
        "    print('still here', flush=True)\n"
        "    print('still here', file=sys.stderr, flush=True)\n"
        "    Path(sys.argv[2]).touch()\n"
    )
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    process = subprocess.Popen(
        [sys.executable, "-c", script, begun, ended],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    while not begun.exists() and process.poll() is None:
        threading.Event().wait(0.05)
    os.close(ours)
    process.send_signal(signal.SIGHUP)  # as the kernel does where it is the session's terminal
    assert process.wait(timeout=60) == 0 and Path(ended).exists()
