"""The environment that scripts/_environment.sh builds, repairs, or refuses to build."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

# Nothing here has a dtype; the float32 run need not repeat it.
pytestmark = [
    pytest.mark.float64,
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "PYTHONWARNINGS", "VGJAX_EXTRAS", "LC_ALL")


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose .venv is ready, by its stamp, though nothing is installed."""
    return make_checkout(tmp_path / "checkout")


def make_checkout(root):
    (root / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/_environment.sh"):
        shutil.copy(ROOT / name, root / name)
    venv.create(root / ".venv", symlinks=True)
    result = bash(root, '{ _wanted_key; echo; echo experiments; } >"$STAMP"')
    assert result.returncode == 0, result.stderr
    # Whatever is to be built or installed is refused, so nothing needs a network.
    stub = root / "stub"
    stub.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || [ "$1" = --version ] || exit 1\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    stub.chmod(0o755)
    return root


def bash(root, command, **variables):
    given = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    given |= {
        "STAMP": str(root / ".venv" / "vgjax-stamp"),
        "VGJAX_PYTHON": str(root / "stub") if (root / "stub").exists() else "",
    }
    script = f'set -euo pipefail; source "$0"; enter_repository; {command}'
    return subprocess.run(
        ["bash", "-c", script, str(root / "scripts" / "_environment.sh")],
        env=given | variables,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def packages(root):
    (folder,) = (root / ".venv" / "lib").glob("python*/site-packages")
    return folder


def install(root, name, files):
    record = packages(root) / f"{name}-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (record / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (packages(root) / file).parent.mkdir(exist_ok=True)
        (packages(root) / file).touch()


ENSURE = "ensure_environment experiments; echo ready"


def test_an_environment_that_is_ready_is_taken_as_it_is(checkout):
    result = bash(checkout, ENSURE)
    assert (result.stdout, result.stderr) == ("ready\n", "")


def test_python_without_pyvenv_cfg_is_no_environment(checkout):
    (checkout / ".venv" / "pyvenv.cfg").unlink()
    result = bash(checkout, ENSURE)
    assert "ready" not in result.stdout
    assert ".venv is not a virtual environment that works" in result.stderr
    assert "building .venv" in result.stderr


@pytest.mark.parametrize("gone", ["made_up/__init__.py", "made_up/inner.py"])
def test_files_that_were_deleted_from_the_environment_are_missed(checkout, gone):
    install(checkout, "made_up", ["made_up/__init__.py", "made_up/inner.py"])
    assert bash(checkout, ENSURE).stdout == "ready\n"
    (packages(checkout) / gone).unlink()
    result = bash(checkout, ENSURE)
    assert "ready" not in result.stdout
    assert "files are missing in .venv; installing anew: made_up==1.0" in result.stderr
    # Without pip that cannot be done.
    assert "files are missing in .venv: remove it and run again." in result.stderr


def test_checkout_that_cannot_be_written_to_is_refused_in_one_sentence(checkout):
    (checkout / ".venv" / "vgjax-stamp").unlink()
    # What root meets too: opening it for writing fails.
    (checkout / ".venv.lock").mkdir()
    result = bash(checkout, ENSURE)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"nothing can be written in {checkout}" in line


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_paths_outside_ascii_are_read_in_any_locale(tmp_path, locale):
    root = make_checkout(tmp_path / "Grüße")
    (root / "made_up.py").touch()
    (packages(root) / "editable.pth").write_text(f"{root}\n", encoding="utf-8")
    command = f'{ENSURE}; "$python" -c "import made_up; print(made_up.__file__)"'
    result = bash(root, command, LC_ALL=locale)
    if "UTF-8 locale" in result.stderr:
        pytest.skip("the system has no UTF-8 locale, and is told so")
    assert result.stderr == ""
    assert result.stdout == f"ready\n{root / 'made_up.py'}\n"


# Compiled programs

SHOW = "; echo ${JAX_COMPILATION_CACHE_DIR-unset}"


def test_programs_are_kept_in_a_folder_that_git_ignores(checkout):
    result = bash(checkout, ENSURE + SHOW)
    folder = Path(result.stdout.splitlines()[-1])
    assert folder.is_dir()
    assert folder.parent == checkout / ".jax-cache"
    assert ".jax-cache/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("own", ["", "/somewhere/else"])
def test_another_folder_for_programs_or_none_is_respected(checkout, own):
    result = bash(checkout, ENSURE + SHOW, JAX_COMPILATION_CACHE_DIR=own)
    assert result.stdout == f"ready\n{own}\n"
    assert not (checkout / ".jax-cache").exists()


def test_programs_are_not_kept_where_nothing_can_be_written(checkout):
    (checkout / ".jax-cache").touch()
    result = bash(checkout, ENSURE + SHOW)
    assert (result.stdout, result.stderr) == ("ready\nunset\n", "")


PROGRAM = """
import jax, numpy as np
result = jax.jit(lambda x: jax.numpy.cos(x @ x))(np.eye(3) / 3)
print(np.asarray(result).tobytes().hex())
"""


@pytest.mark.slow
def test_a_damaged_program_is_compiled_anew_without_a_word(checkout):
    command = f'ensure_environment experiments; "{sys.executable}" -c "$PROGRAM"'
    given = {"PROGRAM": PROGRAM, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    first = bash(checkout, command, **given)
    programs = list((checkout / ".jax-cache").glob("*/*-cache"))
    assert programs
    for program in programs:
        program.write_bytes(b"not a program")
    second = bash(checkout, command, **given)
    assert (second.stdout, second.stderr) == (first.stdout, "")
    told = bash(checkout, command.replace(";", "; unset PYTHONWARNINGS;"), **given)
    assert "Error reading persistent compilation cache" in told.stderr
