"""A file is replaced whole or not at all: full disks, limits, read-only folders, links, orphans, kills."""

import errno
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import numpy as np
import pytest

from resnetcore import _atomic, safetensors

OLD = {"a": np.arange(5.0)}
LARGE = {"a": np.zeros(200_000)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "arrays.safetensors"
    safetensors.write(path, OLD)
    return path


def is_old(path):
    return safetensors.read(path)[0]["a"].tolist() == OLD["a"].tolist()


def leftovers(folder):
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


def run(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(os.fspath, arguments)], **options)


def shell(script, *arguments):
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["sh", "-ec", script, "sh", *map(os.fspath, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def mounted(mount, *arguments):
    # In a mount namespace of its own, so that nothing stays mounted.
    return shell(f'exec unshare -m sh -ec \'{mount}; "$PYTHON" -c "$2" "$1"\' sh "$1" "$2"', *arguments)


def test_the_mode_of_the_old_file_is_kept(path):
    for mode in (0o600, 0o640, 0o664):
        path.chmod(mode)
        safetensors.write(path, LARGE)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        safetensors.write(tmp_path / "new", OLD)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_of_the_old_file_is_kept(path):
    os.chown(path, 1234, 2345)
    safetensors.write(path, LARGE)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_of_a_link_what_it_points_to_is_replaced(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to("../arrays.safetensors")
    safetensors.write(link, LARGE)
    assert link.is_symlink() and safetensors.read(path)[0]["a"].size == 200_000
    assert os.listdir(tmp_path / "elsewhere") == ["link"]


def test_a_dangling_link_gets_its_file_and_a_circular_one_an_error(tmp_path):
    (tmp_path / "link").symlink_to("file")
    safetensors.write(tmp_path / "link", OLD)
    assert is_old(tmp_path / "file") and (tmp_path / "link").is_symlink()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError) as caught:
        safetensors.write(tmp_path / "circle", OLD)
    assert caught.value.errno == errno.ELOOP


def test_another_name_of_the_file_keeps_the_old_content(path, tmp_path):
    os.link(path, tmp_path / "other")
    safetensors.write(path, LARGE)
    assert is_old(tmp_path / "other")


@pytest.mark.parametrize("name", ["file", "ü.safetensors", "a" * 255, "new\nline", "-rf", "*?[x]"])
def test_any_file_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    safetensors.write(name, OLD)
    assert is_old(name) and os.listdir() == [name]


def test_what_is_not_a_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for target in (tmp_path, tmp_path / "fifo", "/dev/null", tmp_path / "no" / "folder"):
        with pytest.raises(OSError):
            safetensors.write(target, OLD)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_size_limit_leaves_the_old_file(path):
    code = """
        import errno, resource, sys, numpy as np
        from resnetcore import safetensors
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            safetensors.write(sys.argv[1], {"a": np.zeros(200_000)})
        except OSError as error:
            sys.exit(0 if error.errno == errno.EFBIG and error.filename == sys.argv[1] else repr(error))
        sys.exit("no error")
    """
    assert run(code, path).wait() == 0
    assert is_old(path) and not leftovers(path.parent)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    code = textwrap.dedent("""
        import errno, os, sys, numpy as np
        from resnetcore import safetensors
        path = os.path.join(sys.argv[1], "x")
        safetensors.write(path, {"a": np.arange(5.0)})
        try:
            safetensors.write(path, {"a": np.zeros(200_000)})
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            assert safetensors.read(path)[0]["a"].tolist() == [0, 1, 2, 3, 4]
            assert os.listdir(sys.argv[1]) == ["x"]
            safetensors.write(path, {"a": np.zeros(3)})
            print("kept")
    """)
    mount = 'mount -t tmpfs -o size=1M tmpfs "$1"'
    if mounted(mount, tmp_path, "pass").returncode:
        pytest.skip("no file system may be mounted here")
    done = mounted(mount, tmp_path, code)
    assert (done.stdout, done.stderr) == ("kept\n", "")


def test_a_read_only_file_system_leaves_the_old_file(path):
    mount = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"'
    if mounted(mount, path.parent, "pass").returncode:
        pytest.skip("no file system may be mounted here")
    code = """import errno, sys, numpy as np
from resnetcore import safetensors
for name in ("/arrays.safetensors", "/new"):
    try:
        safetensors.write(sys.argv[1] + name, {"a": np.zeros(3)})
    except OSError as error:
        print(error.errno in (errno.EROFS, errno.EACCES))"""
    assert mounted(mount, path.parent, code).stdout == "True\nTrue\n"
    assert is_old(path) and not leftovers(path.parent)


def test_a_read_only_folder_or_file_leaves_the_old_file():
    code = """
        import os, sys, numpy as np
        from resnetcore import safetensors
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            safetensors.write(sys.argv[1], {"a": np.zeros(3)})
        except PermissionError:
            sys.exit("refused")
    """
    # Not tmp_path: no other user may enter the folders above it.
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x")
        safetensors.write(path, OLD)

        def attempt(folder_mode, file_mode):
            os.chmod(folder, folder_mode)
            path.chmod(file_mode)
            writer = run(code, path, stderr=subprocess.PIPE, text=True)
            error = writer.communicate()[1]
            if "No module named" in error:
                pytest.skip("another user cannot read this installation")
            return error

        assert attempt(0o555, 0o666) == attempt(0o777, 0o444) == "refused\n"
        assert is_old(path) and not leftovers(folder)
        assert attempt(0o777, 0o666) == ""
        assert not is_old(path) and not leftovers(folder)


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_an_error_of_any_call_leaves_the_old_file(path, monkeypatch, failing):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "planted")

    monkeypatch.setattr(_atomic.os, failing, fail)
    with pytest.raises(OSError, match=r"planted.*arrays\.safetensors"):
        safetensors.write(path, LARGE)
    monkeypatch.undo()
    assert is_old(path) and not leftovers(path.parent)


def test_ctrl_c_leaves_the_old_file(path, monkeypatch):
    def interrupt(descriptor, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(_atomic.os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        safetensors.write(path, LARGE)
    monkeypatch.undo()
    assert is_old(path) and not leftovers(path.parent)


def test_short_writes_are_continued(path, monkeypatch):
    write = os.write
    monkeypatch.setattr(_atomic.os, "write", lambda descriptor, data: write(descriptor, bytes(data[:1000])))
    values = {"a": np.arange(3000.0)}
    safetensors.write(path, values)
    np.testing.assert_array_equal(safetensors.read(path)[0]["a"], values["a"])


def test_the_file_reaches_the_disk_before_it_takes_the_path_and_the_folder_after(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recording_replace(*arguments, **options):
        calls.append("rename")
        replace(*arguments, **options)

    monkeypatch.setattr(_atomic.os, "fsync", recording_fsync)
    monkeypatch.setattr(_atomic.os, "replace", recording_replace)
    safetensors.write(path, LARGE)
    assert calls == ["file", "rename", "folder"]


def test_no_descriptor_is_left_open(path):
    count = len(os.listdir("/proc/self/fd"))
    for target in (path, path.parent):
        try:
            safetensors.write(target, OLD)
            safetensors.read(target)
        except OSError:
            pass
    assert len(os.listdir("/proc/self/fd")) == count


def test_a_killed_writer_leaves_the_old_file_and_its_orphan_is_swept(path):
    code = """
        import os, signal, sys, numpy as np
        from resnetcore import _atomic, safetensors
        _atomic.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        safetensors.write(sys.argv[1], {"a": np.zeros(200_000)})
    """
    assert run(code, path).wait() == -signal.SIGKILL
    assert is_old(path) and len(leftovers(path.parent)) == 1
    safetensors.write(path, OLD)
    assert not leftovers(path.parent)


def test_the_file_of_a_writer_at_work_and_what_only_looks_like_one_is_not_swept(path):
    folder = path.parent
    others = [".other.tmp", ".resnetcore-notes", "resnetcore-1.tmp"]
    for name in others:
        (folder / name).write_bytes(b"")
    (folder / ".resnetcore-link.tmp").symlink_to(path)
    os.mkfifo(folder / ".resnetcore-fifo.tmp")

    def chunks():
        yield b"outer"
        safetensors.write(folder / "inner", OLD)

    _atomic.replace_file(folder / "outer", chunks())
    assert (folder / "outer").read_bytes() == b"outer" and is_old(folder / "inner") and is_old(path)
    assert {*others, ".resnetcore-link.tmp", ".resnetcore-fifo.tmp"} < set(os.listdir(folder))


def test_a_file_swept_before_its_lock_is_made_again(path, monkeypatch):
    lock = _atomic._lock
    swept = []

    def sweep_first(descriptor):
        if len(swept) == 2:
            return lock(descriptor)
        swept.extend(leftovers(path.parent))
        os.unlink(path.parent / swept[-1])
        return len(swept) == 1 and lock(descriptor)  # the second time the other writer still holds its lock

    monkeypatch.setattr(_atomic, "_lock", sweep_first)
    safetensors.write(path, LARGE)
    assert len(swept) == 2 and safetensors.read(path)[0]["a"].size == 200_000 and not leftovers(path.parent)


def test_many_writers_of_one_file_leave_one_of_theirs(path):
    failed = []

    def work(number):
        try:
            for _ in range(20):
                safetensors.write(path, {"a": np.full(5000, float(number))})
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(set(safetensors.read(path)[0]["a"].tolist())) in (1, 5)
    for thread in threads:
        thread.join()
    assert not failed and not leftovers(path.parent)


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_any_time_the_file_is_whole(path, deadly):
    code = """
        import sys, numpy as np
        from resnetcore import safetensors
        number = 0
        print("ready", flush=True)
        while True:
            number += 1
            safetensors.write(sys.argv[1], {"a": np.full(100_000, float(number))})
    """
    rng = np.random.default_rng(0)
    for _ in range(6):
        writer = run(code, path, stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(rng.uniform(0.005, 0.08))
        writer.send_signal(deadly)
        assert writer.wait() == -deadly
        writer.stdout.close()
        values = safetensors.read(path)[0]["a"]
        assert len(set(values.tolist())) == 1 or is_old(path)
        assert len(leftovers(path.parent)) <= 1
    safetensors.write(path, OLD)
    assert not leftovers(path.parent)
