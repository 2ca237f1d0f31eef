"""The cache of compiled kernels, and the decorators that compile them.

Numba's own cache is next to the source or in a shared user folder, and loading it unpickles the files found there. This
cache is one private folder of the user (mode 0700; its owner, links, parent folders and files are checked before use).
So read-only installs work, nothing is ever loaded from a run folder, and nobody else can plant code. The folder is
looked up when the first kernel is compiled, not on import.
"""

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

_SOURCE = Path(__file__).resolve().parent


def _candidates() -> list[Path]:
    """Return the folders that may hold the cache, best first."""
    own, shared = os.environ.get("SELFINSTRUCT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folders = [Path(own)] if own else []
    folders += [Path(base) / "selfinstruct-local" for base in (shared, "~/.cache") if base]
    with contextlib.suppress(OSError):
        temporary = Path(tempfile.gettempdir())
        # Python falls back to the working directory, which may belong to anybody.
        if temporary != Path.cwd():
            folders.append(temporary / f"selfinstruct-local-{os.getuid()}")
    # A relative path would also be resolved in the working directory.
    return [folder.expanduser() / "kernels" for folder in folders if folder.expanduser().is_absolute()]


def is_private(folder: Path) -> bool:
    """Return whether `folder` is a real directory of this user that nobody else can write to, read or replace."""
    try:
        status = folder.lstat()
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.getuid()
            and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            and not any(_is_open(parent) for parent in folder.resolve().parents)
        )
    except OSError:
        return False


def _is_open(folder: Path) -> bool:
    """Return whether anybody can rename entries of `folder`; the sticky bit of a temporary folder prevents it."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _holds_own_files(folder: Path) -> bool:
    """Return whether `folder` does not exist, or it and all its entries belong to this user and are no links."""
    if not folder.is_symlink() and not folder.exists():
        return True
    status = [folder.lstat(), *(path.lstat() for path in folder.iterdir())]
    return all(each.st_uid == os.getuid() and not stat.S_ISLNK(each.st_mode) for each in status)


def cache_folder() -> Path | None:
    """Return the private folder for compiled kernels, created if missing; None if no folder is usable.

    It is a folder `kernels` of mode 0700 in the first usable one of `$SELFINSTRUCT_CACHE`, `selfinstruct-local` in
    `$XDG_CACHE_HOME` and in `~/.cache`, and a folder in the temporary folder. A folder that belongs to another user,
    holds files of another user, is a link, or is open to others is skipped.
    """
    for folder in _candidates():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if is_private(folder) and _holds_own_files(folder / _source_name()):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


def _source_name() -> str:
    """Return the name of the folder for the kernels of this installation, a hash of its path."""
    return hashlib.sha256(str(_SOURCE).encode()).hexdigest()[:16]


def _source_stamp() -> str:
    """Return a digest of all kernel sources; Numba itself checks only the file of the outermost function."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _PrivateLocator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):  # type: ignore[misc]  # noqa: SLF001 (no public API)
    """Numba's cache locator for the private folder."""

    _stamp: str | None = None

    def __init__(self, function: Callable[..., Any], path: str) -> None:
        self._py_file = path
        self._lineno = function.__code__.co_firstlineno
        folder = cache_folder()
        if folder is None:
            message = "no private folder for compiled kernels"
            raise OSError(message)
        self._folder = folder

    @classmethod
    def from_function(cls, function: Callable[..., Any], path: str) -> "_PrivateLocator | None":
        try:
            locator = cls(function, path)
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator

    def get_cache_path(self) -> str:
        return str(self._folder / _source_name())

    def get_source_stamp(self) -> str:
        if _PrivateLocator._stamp is None:
            _PrivateLocator._stamp = _source_stamp()
        return _PrivateLocator._stamp


class _PrivateCacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_PrivateLocator,)


class _PrivateFunctionCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _PrivateCacheImpl


class _Announcer:
    """Prints once, to stderr, that kernels are being compiled."""

    said = False

    @classmethod
    def say(cls, folder: Path | None) -> None:
        if not cls.said:
            cls.said = True
            where = f"cached in {folder}" if folder else "not cached: no private cache folder is writable"
            sys.stderr.write(f"selfinstruct: compiling the similarity kernels, once ({where})\n")


class _LazyCache:
    """Opens Numba's cache on the first compilation, so that importing touches no file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._cache: Any = None
        self._opened = False

    def _open(self) -> Any:
        if not self._opened:
            self._opened = True
            try:
                self._cache = _PrivateFunctionCache(self._function)
            except (RuntimeError, OSError):  # Numba: "no locator available"
                self._cache = None
        return self._cache

    def load_overload(self, signature: object, target: object) -> object:
        cache = self._open()
        try:
            found = cache.load_overload(signature, target) if cache else None
        except Exception:  # noqa: BLE001 (unpickling a corrupt cache file may raise anything; the kernel is recompiled)
            found = None
            with contextlib.suppress(OSError):
                cache.flush()
        if found is None:
            _Announcer.say(Path(cache.cache_path) if cache else None)
        return found

    def save_overload(self, signature: object, data: object) -> None:
        cache = self._open()
        if cache:
            try:
                cache.save_overload(signature, data)
            except (OSError, EOFError, pickle.UnpicklingError):  # a full disk costs the cache, not the result
                self._cache = None

    @property
    def cache_path(self) -> str | None:
        cache = self._open()
        return cache.cache_path if cache else None

    def enable(self) -> None:
        """Do nothing: the cache is always enabled."""

    def disable(self) -> None:
        """Do nothing: the cache cannot be disabled."""

    def flush(self) -> None:
        cache = self._open()
        if cache:
            cache.flush()


def kernel(function: Callable[..., Any]) -> Any:
    """Return `function` compiled with Numba for calls from Python: no GIL, IEEE arithmetic as written, private cache.

    A kernel may slice arrays but not allocate them. Numba counts references with a locked instruction for each array
    taken out of a tuple; without reference counts the index is a third faster.
    """
    return _compiled(function, no_cpython_wrapper=False)


def inner(function: Callable[..., Any]) -> Any:
    """Return `function` compiled like `kernel`, but without a Python wrapper: only other kernels can call it."""
    return _compiled(function, no_cpython_wrapper=True)


def _compiled(function: Callable[..., Any], *, no_cpython_wrapper: bool) -> Any:
    dispatcher = numba.njit(
        nogil=True, error_model="numpy", _nrt=False, no_cpython_wrapper=no_cpython_wrapper, no_cfunc_wrapper=True
    )(function)
    dispatcher._cache = _LazyCache(function)  # noqa: SLF001 (as Numba's cache=True does)
    return dispatcher
