"""Files are there whole or not at all, and a folder has one worker, however many ask."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import stat
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sentei.files import (
    append_line,
    check_place,
    expanded,
    leftovers,
    replacing,
    sweep,
    write_once,
    write_text,
)
from sentei.locks import FolderLock, Lease, LeaseLost
from sentei.messages import SenteiWarning

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


@pytest.mark.parametrize("left", ["", "pid", "\0" * 40], ids=["nothing", "half", "zeros"])
def test_a_lease_that_a_power_cut_took_the_words_of_is_free_after_a_while(path, left):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(left)
    ours = Lease(path, 1.0)
    wait_for(ours.take, seconds=20.0)
    with ours:
        ours.check()


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


# ------------------------------------------------------------------------------ kept by the disk


def test_what_takes_its_place_is_on_the_disk_before_it_does(tmp_path, monkeypatch):
    """A power cut keeps names and loses bytes that were not synced."""
    synced, fsync, replace = set(), os.fsync, os.replace

    def sync(number: int) -> None:
        synced.add(os.fstat(number).st_ino)
        fsync(number)

    def move(source, target) -> None:
        parts = [Path(source), *Path(source).rglob("*")]
        assert {part.stat().st_ino for part in parts} <= synced
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    write_text(tmp_path / "a.txt", "text")
    with replacing(tmp_path / "out") as unfinished:
        (unfinished / "inner").mkdir(parents=True)
        (unfinished / "inner" / "file").write_text("text")
    assert tmp_path.stat().st_ino in synced
    assert write_once(tmp_path / "once", "text")
    assert (tmp_path / "once").stat().st_ino in synced


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_syncs_no_folder_is_written_to_all_the_same(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def sync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    for name in (".a.txt.12.unfinished", "a.txt", ".env", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / ".model.12.replaced" / "inner").mkdir(parents=True)
    assert len(leftovers(tmp_path)) == 3
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", ".env", ".lock"}


@pytest.mark.parametrize("path", ["~/runs/first", Path("~/runs/first")])
def test_a_tilde_is_the_home_folder(path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded(path) == tmp_path / "runs" / "first"
    assert expanded("./~/a") == Path("~/a") and expanded("a") == Path("a")
    assert expanded("~nobody-is-called-so/a") == Path("~nobody-is-called-so/a")


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines"
    append_line(path, "é" * 10)
    append_line(path, "b")
    before = path.read_bytes()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))  # as a disk with that much left
        try:
            append_line(path, "c" * 100)
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert path.read_bytes() == before == ("é" * 10 + "\nb\n").encode()


# ----------------------------------------------------------------------------- one at a time


def lock(folder: Path, go: Path, *, shared: bool = False) -> None:
    """Hold a folder until told to go; in a process of its own."""
    with FolderLock(folder, shared=shared):
        go.with_name("held").touch()
        while not go.exists():
            time.sleep(0.02)


@pytest.fixture
def owner(tmp_path):
    """Another process that has the folder ``run``."""
    process = FORK.Process(target=lock, args=(tmp_path / "run", tmp_path / "go"))
    process.start()
    wait_for((tmp_path / "held").exists)
    yield process
    (tmp_path / "go").touch()
    process.join(timeout=60)


def test_a_folder_has_one_owner_who_is_named(owner, tmp_path):
    said = rf"run: another process \(process {owner.pid} on .*\) is at work in this folder; wait"
    with pytest.raises(ValueError, match=said), FolderLock(tmp_path / "run"):
        pass
    assert not FolderLock(tmp_path / "run", shared=True).take()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(owner, tmp_path, number):
    os.kill(owner.pid, number)
    owner.join(timeout=60)
    with FolderLock(tmp_path / "run"):
        assert not FolderLock(tmp_path / "run").take()
    assert list((tmp_path / "run").iterdir()) == []  # the dead one's file, too


def test_who_waits_gets_the_folder_when_the_other_ends(owner, tmp_path):
    (tmp_path / "go").touch()
    with FolderLock(tmp_path / "run", patience=60.0):
        pass


def test_a_folder_that_was_made_for_nothing_is_taken_away(tmp_path):
    with FolderLock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with FolderLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_those_who_share_a_folder_keep_an_only_owner_out(tmp_path):
    ours, other, alone = FolderLock(tmp_path, shared=True), FolderLock(tmp_path, shared=True), None
    assert ours.take() and other.take()
    alone = FolderLock(tmp_path)
    ours.leave()
    assert not alone.take()
    other.leave()
    assert alone.take()
    alone.leave()
    assert list(tmp_path.iterdir()) == []


def contend(folder: Path, start) -> None:
    """Take a folder again and again, and count in it; in a process of its own."""
    start.wait()
    for _ in range(30):
        with FolderLock(folder / "run", patience=60.0):
            number = int((folder / "count").read_text())
            (folder / "count").write_text(str(number + 1))


def test_a_lock_that_is_taken_away_lets_no_two_in(tmp_path):
    (tmp_path / "count").write_text("0")
    start = FORK.Barrier(4)
    processes = [FORK.Process(target=contend, args=(tmp_path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "120"


def test_a_disk_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def flock(number: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(SenteiWarning, match="its disk has no locks"), FolderLock(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "file": "no folder",
        "file/x/y": "no folder",
        "pipe/x": "no folder",
        "loop": "a link that leads nowhere",
        "loop/x": "a link that leads nowhere",
        "gone": "a link that leads nowhere",
        "x" * 300: "too long",
        "new/" + "x" * 300: "too long",
        "not-utf-8-\udc80": "not UTF-8",
    }.items():
        with pytest.raises(ValueError, match=said) as refused:
            check_place(tmp_path / name)
        assert len(str(refused.value)) < 500
    for path in (tmp_path, tmp_path / "new" / "er", Path(".")):
        check_place(path)
    with pytest.raises(ValueError, match="/dev/null is no folder"):
        check_place(Path("/dev/null"))
