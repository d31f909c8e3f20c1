"""How every file is written: whole or not at all, and only where there is none or a plain one."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from specmd_jax.core.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where nothing that was left behind is removed
    fcntl = None

PREFIX, SUFFIX = ".specmd-", ".partial"  # of the folder that holds a file while it is written
_ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "choose a disk that takes files of this size",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "choose a folder you may write in",
    errno.EPERM: "choose a folder you may write in",
    errno.EROFS: "choose a folder you may write in",
}
_held: dict[Path, int | None] = {}  # folders of files being written, and what locks each


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields where to write what then takes the place of `path`, whole or not at all.

    A link is followed, and stays. Permissions are those of the file that is replaced, or what the
    umask leaves. What a process that was killed left half-written in the folder is removed.

    Args:
      path: a plain file, or none yet, in a folder that exists.

    Raises:
      InputError: `path` is something else, or cannot be written.
    """
    check_target(path)
    target = Path(os.path.realpath(path))
    try:
        remove_leftovers(target.parent)
        folder = _hold(target.parent)
        try:
            half = folder / f"whole{target.suffix}"
            yield half
            _take_permissions(half, target)
            os.replace(half, target)
        finally:
            _release(folder)
    except OSError as error:
        raise unwritable(path, error) from error


def check_target(path: Path) -> None:
    """Refuses a place where no file can be put: to be asked before the work that it shall hold.

    Raises:
      InputError: there is something else than a plain file, or the folder takes none.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: {target.parent} is no folder, make it first")
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise unwritable(path, error) from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path} is a folder: give a file in it")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is {_kind(found.st_mode)} and no file: give another name")
    if found is not None and not os.access(target, os.W_OK):
        raise InputError(f"{path} is write-protected: give another name")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError(errno.EACCES, "its folder is read-only"))


def unwritable(path: Path, error: OSError) -> InputError:
    """Returns what to tell of a file that cannot be written, and what to do about it."""
    advice = _ADVICE.get(error.errno or 0, "choose another place")
    return InputError(f"{path} cannot be written ({error.strerror or error}): {advice}")


def remove_leftovers(folder: Path) -> None:
    """Removes what processes of this user left half-written in `folder` when they were killed.

    What is still being written is locked by the one who writes it. Where a file system has no
    locks nothing is removed.
    """
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):
            ours = path.lstat().st_uid == os.geteuid() if fcntl else False
            if ours and path not in _held and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def discard_all() -> None:
    """Removes whatever this process is writing: for one that ends without unwinding."""
    for folder in list(_held):
        shutil.rmtree(folder, ignore_errors=True)


def _hold(parent: Path) -> Path:
    """Makes a folder that nobody takes for left over while this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(SUFFIX, PREFIX, parent))
        _held[folder] = _lock(folder)
        if folder.exists():  # else someone's cleaning came between
            return folder
        _release(folder)


def _release(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if (lock := _held.pop(folder)) is not None:
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Returns a descriptor that locks `folder` until it is closed; None if that cannot be had."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _take_permissions(half: Path, target: Path) -> None:
    """Gives `half` the mode and the owners of `target`; if there is none, what the umask leaves."""
    try:
        old = target.stat()
    except FileNotFoundError:
        sample = half.with_name("sample")
        sample.touch()
        half.chmod(stat.S_IMODE(sample.stat().st_mode))
        return
    if (old.st_uid, old.st_gid) != (half.stat().st_uid, half.stat().st_gid):
        with suppress(OSError):  # few may give a file away
            os.chown(half, old.st_uid, old.st_gid)
    half.chmod(stat.S_IMODE(old.st_mode))


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
