"""`replace_file`: whole or not at all, and only where there is none or a plain file."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from specmd_jax.core.errors import InputError
from specmd_jax.core.files import PREFIX, SUFFIX, check_target, replace_file
from specmd_jax.core.tensors import write_tensors

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False


@pytest.fixture
def umask() -> Iterator[int]:
    """A umask that nobody has by default."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def put(path: Path, text: str = "new") -> None:
    with replace_file(path) as half:
        half.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.st"
    path.write_text("old")
    with replace_file(path) as half:
        half.write_text("new")
        assert path.read_text() == "old" and half.suffix == ".st"
    assert path.read_text() == "new" and names(tmp_path) == ["a.st"]


def test_what_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replace_file(path) as half:
        half.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == ["a"]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a", tmp_path / "link"
    link.symlink_to(target)
    for text in ("made", "replaced"):  # a link to nothing yet, then one to a file
        put(link, text)
        assert link.is_symlink() and not target.is_symlink() and target.read_text() == text
    assert names(tmp_path) == ["far", "link"] and names(tmp_path / "far") == ["a"]


def test_permissions(tmp_path: Path, umask: int) -> None:
    put(tmp_path / "new")
    write_tensors({"x": np.zeros(2)}, tmp_path / "tensors", {})  # the library's own are narrower
    assert mode(tmp_path / "new") == mode(tmp_path / "tensors") == 0o666 & ~umask
    old = tmp_path / "old"
    old.touch()
    old.chmod(0o604)
    put(old)
    assert mode(old) == 0o604


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_and_a_device_stay_what_they_are(tmp_path: Path, linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, what in [(pipe, "a pipe"), (Path("/dev/null"), "a device")]:
        given = path
        if linked:
            given = tmp_path / f"{path.name}-link"
            given.symlink_to(path)
        before = path.stat()
        with pytest.raises(InputError, match=f"is {what} and no file"):
            put(given)
        assert path.stat().st_ino == before.st_ino


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    for path, what in [
        (tmp_path, "is a folder: give a file in it"),
        (tmp_path / "no" / "a", "no is no folder, make it first"),
        (tmp_path / "file" / "a", "file is no folder, make it first"),
        (tmp_path / "circle", "symbolic links"),
        (tmp_path / ("x" * 300), "choose a shorter name"),
    ]:
        with pytest.raises(InputError, match=what):
            check_target(path)
        with pytest.raises(InputError, match=what):
            put(path)
    assert names(tmp_path) == ["circle", "file"]


@pytest.mark.skipif(ROOT, reason="root may write anywhere")
def test_what_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(0o444)
    with pytest.raises(InputError, match="write-protected"):
        put(tmp_path / "a")
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="its folder is read-only"):
        put(tmp_path / "b")


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(InputError, match=r"No space left on device\): make room"):  # noqa: SIM117
        with replace_file(path) as half:
            half.write_text("n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old" and names(tmp_path) == ["a"]


def test_a_system_that_takes_no_more_bytes(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk that a test cannot have."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"File too large\): choose a disk"):
            write_tensors({"x": np.zeros(1000)}, tmp_path / "a", {})
        with pytest.raises(InputError, match=r"File too large\): choose a disk"):
            put(tmp_path / "a", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


SAME = """
import sys
import numpy as np
from pathlib import Path
from specmd_jax.core.tensors import write_tensors
about = {name: name for name in "cgadbef"} | {"quote": '"\\u00e9\\n'}
write_tensors({"x": np.arange(3), "y": np.ones(2)}, Path(sys.argv[1]), about)
"""


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    for name in "abc":  # each process draws an order of its own
        subprocess.run([sys.executable, "-c", SAME, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.metadata()["quote"] == '"\u00e9\n'
        assert file.get_tensor("x").tolist() == [0, 1, 2] and file.get_tensor("y").sum() == 2


WRITER = """
import sys
from pathlib import Path
from specmd_jax.core.files import replace_file
with replace_file(Path(sys.argv[1])) as half:
    half.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(path: Path) -> "subprocess.Popen[bytes]":
    """Starts a process that writes until its input ends."""
    command = [sys.executable, "-c", WRITER, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_what_a_killed_process_left_is_removed_and_nobody_elses(tmp_path: Path) -> None:
    with writer(tmp_path / "a") as dead, writer(tmp_path / "a") as alive:
        for process in (dead, alive):
            assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (tmp_path / f"{PREFIX}theirs{SUFFIX}").write_text("a file of that name is not ours")
        assert len(names(tmp_path)) == 3
        put(tmp_path / "b")
        left = [name for name in names(tmp_path) if name.endswith(SUFFIX)]
        assert len(left) == 2, "what is being written, and what we did not make"
        alive.communicate(b"")
    assert (tmp_path / "a").read_text() == "half"
    assert names(tmp_path) == [f"{PREFIX}theirs{SUFFIX}", "a", "b"]
