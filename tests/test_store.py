"""Folders of results: whole or not there, whatever happens while they are written."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from vgjax import _store

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Config:
    sizes: tuple[int, ...] = (2, 3)
    out: Path = Path("x")


class Pair(NamedTuple):
    x: np.ndarray
    y: float


def save(folder, value=1.0):
    with _store.replacing(folder) as new:
        _store.write(new, Config(), {"x": np.full(3, value), "y": value})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def process(program, *arguments):
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# What is stored


def test_what_is_written_is_read_again_under_the_names_of_its_branches(tmp_path):
    values = {"a": {"x": np.arange(3.0), "y": 2}, "b": Pair(np.array([1.5]), True)}
    with _store.replacing(tmp_path / "one") as folder:
        _store.write(folder, Config(), values, claim="so it is", seed=7)
    record, arrays = _store.load(tmp_path / "one")
    assert set(arrays) == {"a/x", "b/x"}
    np.testing.assert_array_equal(arrays["a/x"], [0, 1, 2])
    assert record["numbers"] == {"a/y": 2, "b/y": True}
    assert record["dtypes"] == {"a/x": "float64", "b/x": "float64"}
    assert record["config"] == {"sizes": [2, 3], "out": "x"}
    assert (record["claim"], record["seed"]) == ("so it is", 7)
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["numpy"] == np.__version__
    assert record["device"]["platform"] == jax.devices()[0].platform


def test_numbers_that_are_not_finite_stay_readable_by_strict_json(tmp_path):
    values = {"a": -np.inf, "b": np.float32("nan"), "c": jax.numpy.inf}
    with _store.replacing(tmp_path / "one") as folder:
        _store.write(folder, {}, values, checks=[(1.0, np.inf)])
    text = (tmp_path / "one" / "results.json").read_text()
    record = json.loads(text, parse_constant=pytest.fail)
    assert record["numbers"] == {"a": "-inf", "b": "nan", "c": "inf"}
    assert record["checks"] == [[1.0, "inf"]]


def test_what_was_not_written_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        _store.load(tmp_path / "none")


# Whole or not there


def test_an_exception_leaves_the_previous_folder_or_none(tmp_path):
    folder = tmp_path / "one"

    def fail():
        with _store.replacing(folder) as new:
            (new / "results.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())
    save(folder)
    before = contents(folder)
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_what_is_not_written_anew_is_kept(tmp_path):
    save(tmp_path / "one")
    (tmp_path / "one" / "notes.txt").write_text("mine")
    save(tmp_path / "one", 2.0)
    assert (tmp_path / "one" / "notes.txt").read_text() == "mine"
    assert _store.load(tmp_path / "one").record["numbers"] == {"y": 2.0}
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


def test_others_may_read_what_they_may_read_of_any_new_folder(tmp_path):
    save(tmp_path / "one")
    (tmp_path / "plain").mkdir()
    mode = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "one").stat().st_mode == mode
    (tmp_path / "one").chmod(0o700)
    save(tmp_path / "one")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


def test_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "one").symlink_to(tmp_path / "disk")
    save(tmp_path / "one")
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "disk" / "results.json").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from vgjax import _store

folder, left = Path(sys.argv[1]), int(sys.argv[2])
real = Path.rename

def rename(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(self, target)

Path.rename = rename
with _store.replacing(folder) as new:
    (new / "results.json").write_text("new")
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    (new / "arrays.npz").write_text("new")
"""
NEW = {"results.json": b"new", "arrays.npz": b"new"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("renames", "left"),
    [(-1, "old"), (0, "old"), (1, "none"), (2, "new"), (3, "done")],
    ids=["half written", "before", "between two renames", "not tidied", "not killed"],
)
def test_a_kill_at_any_moment_leaves_the_old_the_new_or_nothing(
    tmp_path, renames, left
):
    folder = tmp_path / "one"
    save(folder)
    (folder / "notes.txt").write_text("mine")
    old = contents(folder)
    with process(KILLED, folder, renames) as running:
        running.communicate()
    assert running.returncode == (0 if left == "done" else -signal.SIGKILL)
    if left == "none":
        assert not folder.exists()
    else:
        notes = {"notes.txt": b"mine"} if left == "done" else {}
        assert contents(folder) == (old if left == "old" else NEW | notes)
    # The next to write there brings back what had been moved out of the way.
    _store.check_writable(folder)
    assert contents(folder) == (
        NEW | {"notes.txt": b"mine"} if left in ("new", "done") else old
    )
    assert list(tmp_path.iterdir()) == [folder]


def test_ctrl_c_waits_for_the_renames(tmp_path, monkeypatch):
    save(tmp_path / "one")
    real = Path.rename

    def interrupted(self, target):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    save(tmp_path / "one", 2.0)
    assert _store.load(tmp_path / "one").record["numbers"] == {"y": 2.0}
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_can_write(tmp_path):
    thread = threading.Thread(target=save, args=(tmp_path / "one",))
    thread.start()
    thread.join()
    assert _store.load(tmp_path / "one").record["numbers"] == {"y": 1.0}


# Two at once

WAITING = """
import sys
from pathlib import Path
from vgjax import _store

with _store.replacing(Path(sys.argv[1])) as new:
    (new / "results.json").write_text("new")
    print("writing", flush=True)
    sys.stdin.read()
    (new / "arrays.npz").write_text("new")
"""


@pytest.mark.slow
def test_of_two_that_write_at_once_the_last_wins_whole(tmp_path):
    folder = tmp_path / "one"
    with process(WAITING, folder) as other:
        assert other.stdout.readline() == "writing\n"
        (hidden,) = tmp_path.iterdir()
        save(folder)
        assert sorted(tmp_path.iterdir()) == sorted([hidden, folder])
        assert (hidden / "new" / "results.json").read_text() == "new"
        assert _store.load(folder).record["numbers"] == {"y": 1.0}
        other.communicate()
    assert contents(folder) == NEW
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.slow
def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    with process(WAITING, tmp_path / "one") as other:
        assert other.stdout.readline() == "writing\n"
        other.kill()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".one_too-1").mkdir()  # of another folder
    save(tmp_path / "one")
    assert sorted(tmp_path.iterdir()) == [tmp_path / ".one_too-1", tmp_path / "one"]


HAMMER = """
import sys
from pathlib import Path
from vgjax import _store

print("ready", flush=True)
sys.stdin.read()
for _ in range(300):
    with _store.replacing(Path(sys.argv[1])) as new:
        for name in ("results.json", "arrays.npz"):
            (new / name).write_text(sys.argv[2])
"""


@pytest.mark.slow
def test_two_that_write_over_each_other_never_mix(tmp_path):
    folder = tmp_path / "one"
    running = [process(HAMMER, folder, name) for name in "ab"]
    assert [one.stdout.readline() for one in running] == ["ready\n"] * 2
    for one in running:
        one.stdin.close()
    for one in running:
        with one:
            assert one.wait() == 0
    assert len(set(contents(folder).values())) == 1
    assert list(tmp_path.iterdir()) == [folder]


# Whether it can be written


@pytest.mark.parametrize("taken", ["", "x", "x/results.json"])
def test_what_stands_in_the_way_is_told_by_name(tmp_path, taken):
    out = tmp_path / "out"
    is_folder = bool(Path(taken).suffix)
    if is_folder:
        (out / taken).mkdir(parents=True)
    else:
        (out / taken).parent.mkdir(exist_ok=True)
        (out / taken).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="results cannot be written to") as refused:
        _store.check_writable(out / "x")
    what = "folder" if is_folder else "file"
    assert str(refused.value).endswith(f"out/x: {out / taken} is a {what}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_takes_nothing_is_told_in_one_sentence(tmp_path, monkeypatch, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    full = code == errno.ENOSPC
    monkeypatch.setattr(*((os, "fsync") if full else (tempfile, "mkdtemp")), fail)
    with pytest.raises(OSError, match="results cannot be written to") as refused:
        _store.check_writable(tmp_path / "x")
    assert str(refused.value).endswith(f"/x: {os.strerror(code)}")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_finding_out(tmp_path):
    save(tmp_path / "x")
    before = contents(tmp_path / "x")
    _store.check_writable(tmp_path / "x")
    assert contents(tmp_path / "x") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]
