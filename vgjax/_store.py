"""Folders of results that are whole or not there, with all it takes to repeat them.

What is written into `replacing` goes to a hidden folder beside the final one, which
takes its place by a rename when all of it is complete. A process killed at any moment
leaves the previous folder, or none if it died between two renames; the next to write
there then brings the previous one back.
"""

import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

try:
    import fcntl
except ImportError:  # Windows: what a killed run leaves behind stays there
    fcntl = None

import jax
import numpy as np

RECORD = "results.json"
ARRAYS = "arrays.npz"
_PACKAGES = ("vgjax", "jax", "jaxlib", "flax", "optax", "numpy", "matplotlib")
_PROBE = 2**23  # bytes, several times what a result usually takes


class Stored(NamedTuple):
    """What `load` reads."""

    record: dict[str, Any]  # of results.json
    arrays: dict[str, np.ndarray]  # of arrays.npz, by name


def check_writable(folder: Path, files: Sequence[str] = (RECORD, ARRAYS)) -> None:
    """Raise an OSError of one sentence unless `folder` can be replaced.

    Found out by writing: permissions do not tell of a full disk or a quota.

    Args:
      folder: what is to be written; it need not exist.
      files: names in it that will be replaced, none of which may be a folder.
    """
    try:
        for path in (folder, *folder.parents):
            if path.exists() and not path.is_dir():
                raise _refusal(folder, f"{path} is a file")
        for path in map(folder.joinpath, files):
            if path.is_dir():
                raise _refusal(folder, f"{path} is a folder")
        real = folder.resolve()  # the disk that a link leads to
        with _temporary(real) as temporary:
            _probe(temporary)
        if real.exists():
            with _temporary(real / "probe"):
                pass
    except OSError as error:
        if error.errno is None:
            raise
        raise _refusal(folder, error.strerror or str(error)) from error


def _refusal(folder: Path, reason: str) -> OSError:
    return OSError(f"results cannot be written to {folder}: {reason}")


def _probe(folder: Path) -> None:
    with (folder / "probe").open("wb") as file:
        file.write(os.urandom(_PROBE))  # zeros may take no room
        file.flush()
        os.fsync(file.fileno())  # some file systems tell only now that they are full


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write in, which takes the place of `folder` at the end.

    Where an exception ends the block, `folder` stays as it was. What it holds under
    names that are not written anew is kept. Of two that write at once the last wins.
    """
    folder = folder.resolve()  # a link is followed, not replaced
    with _temporary(folder) as temporary:
        # Made by itself: the temporary folder is closed to other users.
        new = temporary / "new"
        new.mkdir()
        yield new
        with _undisturbed(), _lock(folder.parent, wait=True):
            if folder.exists():
                shutil.copymode(folder, new)
                folder.rename(temporary / "old")
            new.rename(folder)
            _recover(temporary, folder)


def write(folder: Path, config: Any, values: Mapping[str, Any], **record: Any) -> None:
    """Write results.json and arrays.npz into a folder that `replacing` gave.

    Args:
      folder: where.
      config: the dataclass of what was run, or a mapping.
      values: numbers and arrays, in mappings and NamedTuples as deep as one likes;
        "a/b" is the name of ``values["a"]["b"]``. Arrays go to arrays.npz, numbers to
        results.json, where one that is not finite is the string "nan", "inf" or "-inf".
      **record: what else results.json says, before the numbers.
    """
    flat = _flatten(values)
    arrays = {name: np.asarray(x) for name, x in flat.items() if np.ndim(x) > 0}
    content = {
        **record,
        "config": dict(config) if isinstance(config, Mapping) else asdict(config),
        "dtypes": {name: str(x.dtype) for name, x in arrays.items()},
        "versions": _versions(),
        "device": _device(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "numbers": {name: x for name, x in flat.items() if np.ndim(x) == 0},
    }
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **arrays)


def load(folder: Path) -> Stored:
    """Return what `write` wrote into a folder; FileNotFoundError where it did not."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS) as arrays:
        return Stored(record, dict(arrays))


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder`, and remove it and those of killed runs.

    Each is locked while its process lives. All are made and removed under the lock of
    the folder they are in, or one would be taken for left behind before it is locked.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}-"
    with ExitStack() as stack:
        with _lock(folder.parent, wait=True) as alone:
            leftovers = folder.parent.iterdir() if alone else ()
            for path in [p for p in leftovers if p.name.startswith(prefix)]:
                with _lock(path) as dead:
                    if dead:
                        _recover(path, folder)
                        shutil.rmtree(path, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            stack.enter_context(_lock(temporary))
        yield temporary


def _recover(temporary: Path, folder: Path) -> None:
    """Put back what was moved out of `folder` and has no successor there."""
    old = temporary / "old"
    if not old.exists():
        return
    if not folder.exists():
        old.rename(folder)
        return
    for path in old.iterdir():
        if not (folder / path.name).exists():
            path.rename(folder / path.name)


@contextmanager
def _lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder until the end, or of the process; say whether that was possible."""
    if fcntl is None:
        yield False
        return
    opened = None
    try:
        try:
            opened = os.open(folder, os.O_RDONLY)
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            locked = True
        except OSError:  # held by another process, or no locks on this file system
            locked = False
        yield locked
    finally:
        if opened is not None:
            os.close(opened)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C for the few renames that must happen together."""
    # Python delivers it to the main thread alone, and lets no other set a handler.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        value = value._asdict() if hasattr(value, "_asdict") else value
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def _plain(x: Any) -> Any:
    """Return a value as strict JSON knows it, which is without nan and inf."""
    if isinstance(x, Mapping):
        return {name: _plain(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    if isinstance(x, Path):
        return str(x)
    if x is not None and not isinstance(x, (bool, int, float, str)):
        x = np.asarray(x).item()
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "host": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
