"""Files are there whole or not at all, and a folder has one worker, however many ask."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sentei.files import Lease, LeaseLost, replacing, write_once, write_text

FORK = multiprocessing.get_context("fork")


def test_a_failure_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(KeyError), replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_folder_that_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(KeyError), replacing(tmp_path / "out") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
        raise KeyError
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_block_that_writes_nothing_loses_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "old.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_seen_before_the_end(tmp_path):
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        assert unfinished.parent == tmp_path and not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_an_earlier_failure_left_is_not_mixed_in(tmp_path):
    """A process that was killed cleans nothing up, and another may have its number."""
    with replacing(tmp_path / "out") as unfinished:
        leftover = unfinished
        unfinished.mkdir()
    leftover.mkdir()
    (leftover / "stale").touch()
    with replacing(tmp_path / "out") as unfinished:
        assert unfinished == leftover and not unfinished.exists()
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_text_is_utf_8_whatever_the_machine_writes(tmp_path):
    write_text(tmp_path / "a.txt", "剪定")
    write_text(tmp_path / "a.txt", "剪定 é")
    assert (tmp_path / "a.txt").read_bytes() == "剪定 é".encode()
    with pytest.raises(OSError):
        write_text(tmp_path / "missing" / "a.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with replacing(tmp_path / "out") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_stays_itself(tmp_path):
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    with replacing(tmp_path / "out") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert (tmp_path / "out").stat().st_ino == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_first_writer_decides(tmp_path):
    file = tmp_path / "new" / "file"
    assert write_once(file, "first") and not write_once(file, "second")
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]


# --------------------------------------------------------------------------------------- leases


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / ".lease"


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def work(folder: Path, names: list[str], start) -> None:
    """Take all that can be had, and note each; in a process of its own."""
    leases = {name: Lease(folder / name / ".lease", 60.0) for name in names}
    start.wait()
    while not all((folder / name / "done").exists() for name in names):
        for name, lease in leases.items():
            if (folder / name / "done").exists() or not lease.take():
                continue
            with lease:
                if (folder / name / "done").exists():  # as a worker does
                    continue
                note(folder, f"begin {name}")
                time.sleep(0.01)
                lease.check()
                note(folder, f"end {name}")
                (folder / name / "done").touch()


def note(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(line + "\n")


def test_workers_that_begin_at_the_same_moment_never_have_the_same_run(tmp_path):
    names = [f"run{number}" for number in range(5)]
    start = FORK.Barrier(4)
    workers = [FORK.Process(target=work, args=(tmp_path, names, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    counts = Counter((tmp_path / "log").read_text().splitlines())
    assert counts == {f"{word} {name}": 1 for name in names for word in ("begin", "end")}
    assert not list(tmp_path.rglob(".lease*"))


def test_a_run_is_held_then_free(path):
    ours, other = Lease(path, 60.0), Lease(path, 60.0)
    assert ours.take() and not other.take()
    with ours:
        ours.check()
        assert not other.take()
    assert other.take()
    with other:
        other.check()


def test_a_run_left_unfinished_is_free_at_once(path):
    ours, other = Lease(path, 60.0), Lease(path, 60.0)
    assert ours.take()
    with pytest.raises(KeyboardInterrupt), ours:
        raise KeyboardInterrupt
    assert other.take()
    with other:
        other.check()


def hold(path: Path, seconds: float, go: Path) -> None:
    """Hold a lease until told to look, and say what was seen; in a process of its own."""
    lease = Lease(path, seconds)
    assert lease.take()
    with lease:
        go.with_name("held").touch()
        while not go.exists():
            time.sleep(0.02)
        try:
            lease.check()
        except LeaseLost:
            go.with_name("lost").touch()
        else:
            go.with_name("ours").touch()


@pytest.fixture
def holder(path, tmp_path):
    """Another process that holds the lease, which lasts half a second, until ``go`` is there."""
    process = FORK.Process(target=hold, args=(path, 0.5, tmp_path / "go"))
    process.start()
    wait_for((tmp_path / "held").exists)
    yield process
    (tmp_path / "go").touch()
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
    process.join(timeout=60)


def test_a_worker_that_stands_still_loses_its_run_and_learns_of_it(holder, path, tmp_path):
    other = Lease(path, 0.5)
    assert not other.take()
    os.kill(holder.pid, signal.SIGSTOP)
    wait_for(other.take)
    with other:
        (tmp_path / "go").touch()
        os.kill(holder.pid, signal.SIGCONT)
        holder.join(timeout=60)
        assert (tmp_path / "lost").exists() and not (tmp_path / "ours").exists()
        other.check()  # whose lease the other did not take with it


def test_a_living_worker_keeps_its_run_for_as_long_as_it_lasts(holder, path, tmp_path):
    other = Lease(path, 0.5)
    for _ in range(8):
        assert not other.take()
        time.sleep(0.2)
    (tmp_path / "go").touch()
    holder.join(timeout=60)
    assert (tmp_path / "ours").exists() and other.take()
    with other:
        other.check()


def test_a_worker_that_stood_still_keeps_a_run_that_nobody_wanted(holder, path, tmp_path):
    os.kill(holder.pid, signal.SIGSTOP)
    time.sleep(1.2)
    (tmp_path / "go").touch()
    os.kill(holder.pid, signal.SIGCONT)
    holder.join(timeout=60)
    assert (tmp_path / "ours").exists()


def test_the_run_of_a_killed_worker_on_this_machine_is_free_at_once(path, tmp_path):
    process = FORK.Process(target=hold, args=(path, 600.0, tmp_path / "go"))
    process.start()
    wait_for((tmp_path / "held").exists)
    other = Lease(path, 600.0)
    assert not other.take()
    process.kill()
    process.join(timeout=60)
    wait_for(other.take, seconds=10.0)
    with other:
        other.check()


def test_who_shares_a_folder_must_agree_how_long_a_lease_lasts(path):
    ours, other = Lease(path, 60.0), Lease(path, 2.0)
    assert ours.take()
    with ours, pytest.raises(ValueError, match=r"\.lease is held for 60 s without a sign of life"):
        other.take()


def test_a_lease_whose_file_was_removed_is_lost(path):
    lease = Lease(path, 5.0)
    assert lease.take()
    with lease:
        path.unlink()
        time.sleep(0.6)
        with pytest.raises(LeaseLost):
            lease.check()
