"Files are written whole or not at all, and follow nobody's links; one writer at a time, locks or no locks."
import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from robust_smooth.core import places
from robust_smooth.core.places import WriteLock, assets, check_regular, home, write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def fail(*paths):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_not_followed(tmp_path):
    "The name of the temporary file used to be .NAME.PID.tmp, and was opened through a link to somebody's file."
    victim, path = tmp_path / "victim", tmp_path / "a.txt"
    victim.write_text("precious")
    planted = tmp_path / f".a.txt.{os.getpid()}.tmp"
    planted.symlink_to(victim)
    write_atomic(path, "ours")
    assert victim.read_text() == "precious" and path.read_text() == "ours" and planted.is_symlink()


def test_a_guessed_name_is_refused_not_opened(tmp_path, monkeypatch):
    "Even whoever knows the random name beforehand gains nothing: the file must be new."
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda size: "guess")
    (tmp_path / ".guess.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a.txt", "ours")
    assert victim.read_text() == "precious"


def test_a_link_at_the_destination_is_replaced(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "a.txt"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_atomic(path, "ours")
    assert victim.read_text() == "precious" and not path.is_symlink() and path.read_text() == "ours"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_permissions_are_kept(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(mode)
    write_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == "new"


def test_a_private_file_is_private_while_it_is_written(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    path.write_text("old")
    path.chmod(0o600)
    sync = os.fsync

    def look(descriptor):
        seen.extend(stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob(".*.tmp"))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", look)
    write_atomic(path, "new")
    assert seen and set(seen) == {0o600}


def test_a_new_file_obeys_the_mask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize("length", [1, 230, 250, 255])
def test_long_names(tmp_path, length):
    path = tmp_path / ("x" * length)
    write_atomic(path, b"content")
    assert path.read_bytes() == b"content"


def test_threads_do_not_disturb_each_other(tmp_path):
    path, failures = tmp_path / "a.bin", []
    contents = [bytes([number]) * 50_000 for number in range(6)]

    def work(content):
        try:
            for _ in range(10):
                write_atomic(path, content)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_bytes() in contents # never a part
    assert not failures and list(tmp_path.iterdir()) == [path]


def test_file_and_folder_are_synchronised(tmp_path, monkeypatch):
    kinds = []
    sync = os.fsync

    def note(descriptor):
        kinds.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", note)
    write_atomic(tmp_path / "deep" / "a.txt", "x")
    assert kinds == [False, True]


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    kinds = {tmp_path: "a folder", tmp_path / "fifo": "a FIFO", tmp_path / "link": "a FIFO", "/dev/null": "a device"}
    for path, kind in kinds.items():
        for refuse in (check_regular, lambda path: write_atomic(path, "x")):
            with pytest.raises(ValueError, match=f"must be a file, got {kind}"):
                refuse(path)


def test_home_and_assets(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUST_SMOOTH_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"
    assert (assets("papers") / "adre.csv").is_file()
    with pytest.raises(ValueError, match="kind"):
        assets("toys")


UNSUPPORTED = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]


def without_locks(monkeypatch, code=None):
    "No fcntl at all, or a file system that answers with an error."
    if code is None:
        monkeypatch.setattr(places, "fcntl", None)
        return

    def refuse(descriptor, what):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.parametrize("code", [None, *UNSUPPORTED])
def test_without_kernel_locks_there_is_still_one_writer(tmp_path, monkeypatch, code):
    path = tmp_path / "a.votes"
    without_locks(monkeypatch, code)
    with open(path, "ab") as one, open(path, "ab") as two:
        lock = WriteLock(path, one.fileno())
        with pytest.raises(RuntimeError, match=rf"another process is writing .*lock file.*process {os.getpid()}"):
            WriteLock(path, two.fileno())
        lock.release()
        WriteLock(path, two.fileno()).release()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_kernel_lock_that_is_held_is_no_missing_lock(tmp_path, monkeypatch, code):
    without_locks(monkeypatch, code)
    with open(tmp_path / "a", "ab") as file, pytest.raises(RuntimeError, match="^another process is writing [^ ]*a$"):
        WriteLock(tmp_path / "a", file.fileno())
    assert not list(tmp_path.glob(".*"))


def test_two_names_of_one_file_share_a_lock(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    path, other = tmp_path / "a", tmp_path / "b"
    with open(path, "ab") as file:
        other.symlink_to(path)
        with WriteLock(path, file.fileno()), pytest.raises(RuntimeError, match="another process"):
            WriteLock(other, file.fileno())


DIES = """
import os, signal, sys
from robust_smooth.core import places
places.fcntl = None
file = open(sys.argv[1], "ab")
lock = places.WriteLock(sys.argv[1], file.fileno())
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_dead_process(path):
    done = subprocess.run([sys.executable, "-c", DIES, str(path)])
    assert done.returncode == -signal.SIGKILL and places._lock_file(path).exists()


def test_the_lock_file_of_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    path = tmp_path / "a"
    left_by_a_dead_process(path)
    with open(path, "ab") as file, WriteLock(path, file.fileno()):
        assert json.loads(places._lock_file(path).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == [path]


UNKNOWN = [dict(system="another host"), dict(process=None), dict(process=0), dict(process=-1), None]


@pytest.mark.parametrize("change", UNKNOWN)
def test_a_lock_file_of_unknown_origin_is_respected(tmp_path, monkeypatch, change):
    without_locks(monkeypatch)
    path = tmp_path / "a"
    left_by_a_dead_process(path)
    lock = places._lock_file(path)
    text = "" if change is None else json.dumps(json.loads(lock.read_text()) | change)
    lock.write_text(text)
    with open(path, "ab") as file, pytest.raises(RuntimeError, match="delete it if that process is gone"):
        WriteLock(path, file.fileno())
    assert lock.read_text() == text


def _race(path, ready, count):
    places.fcntl = None
    ready.wait()
    with open(path, "ab") as file:
        try:
            lock = WriteLock(path, file.fileno())
        except RuntimeError:
            return
        with count.get_lock():
            count.value += 1
        time.sleep(0.3) # longer than the slowest of the others needs to ask
        lock.release()


def test_of_many_that_find_a_dead_holder_one_takes_over(tmp_path):
    path = tmp_path / "a"
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        left_by_a_dead_process(path)
        ready, count = context.Event(), context.Value("i", 0)
        racers = [context.Process(target=_race, args=(path, ready, count)) for _ in range(8)]
        for racer in racers:
            racer.start()
        ready.set()
        for racer in racers:
            racer.join()
        assert count.value == 1


def test_waiting_for_a_lock(tmp_path):
    path = tmp_path / "a"
    with open(path, "ab") as one, open(path, "ab") as two:
        lock = WriteLock(path, one.fileno())
        threading.Timer(0.2, lock.release).start()
        WriteLock(path, two.fileno(), wait=60).release()


@pytest.mark.parametrize("name", ["half \ud800.votes", "folder\ud800/a.votes", "nothing\0.votes"])
def test_names_that_no_file_can_have_are_refused_by_name(tmp_path, name):
    import robust_smooth as rs
    from robust_smooth.core.votes_file import Journal

    path = str(tmp_path / name)
    record = rs.Record.from_counts([[3, 0]], [[900, 100]], 1000, rs.Gaussian(sigma=0.5), 4, labels=[0])
    certificates = record.certify("l2")
    doors = [
        check_regular,
        lambda path: write_atomic(path, "x"),
        Journal, record.save, rs.load, certificates.save, certificates.write_log,
    ]
    for door in doors:
        with pytest.raises(ValueError, match="a path must be a name that this system can write"):
            door(path)
    assert not list(tmp_path.iterdir())
