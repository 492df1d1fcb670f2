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


@pytest.fixture
def clone(tmp_path):
    """A checkout without .venv, whose Python makes one with a pip that only notes."""
    return make_clone(tmp_path / "clone")


def copy_sources(root):
    (root / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/_environment.sh"):
        shutil.copy(ROOT / name, root / name)


PIP = """
import os, sys, time
with open("pip.log", "a") as log:
    print(*sys.argv[1:], file=log)
time.sleep(float(os.environ.get("PIP_SECONDS", 0)))
sys.exit(os.environ.get("PIP_FAILS") in sys.argv)
"""


def make_clone(root):
    copy_sources(root)
    pip = root / "fake" / "pip"
    pip.mkdir(parents=True)
    (pip / "__init__.py").touch()
    (pip / "__main__.py").write_text(PIP)
    write_stub(
        root / "stub",
        f'[ "$2" = venv ] || exec "{sys.executable}" "$@"\n'
        f'"{sys.executable}" -m venv --without-pip --symlinks "$3"\n'
        'cp -r fake/pip "$3"/lib/python*/site-packages/\n',
    )
    return root


def write_stub(path, body):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)


def pip_calls(root):
    """What pip was asked, without the options that it always has; forgets it."""
    always = "-qq --disable-pip-version-check --no-input --no-compile "
    log = root / "pip.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.replace(always, "") for line in lines]


def make_checkout(root):
    copy_sources(root)
    venv.create(root / ".venv", symlinks=True)
    result = bash(root, '_stamp experiments >"$STAMP"')
    assert result.returncode == 0, result.stderr
    # Whatever is to be built or installed is refused, so nothing needs a network.
    write_stub(
        root / "stub",
        f'[ "$1" = -c ] || [ "$1" = --version ] || exit 1\n'
        f'exec "{sys.executable}" "$@"\n',
    )
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


# Building, with a pip that only notes what it is asked

UPGRADE = "install pip>=25.1"


def installing(*extras):
    return f"install -c constraints.txt -e .[{','.join(extras)}]"


def assert_ready(root):
    """The next call takes what is there, and asks pip for nothing."""
    result = bash(root, ENSURE)
    assert (result.stdout, result.stderr) == ("ready\n", "")
    assert pip_calls(root) == []


@pytest.mark.parametrize("name", ["clone", "a clone, with blanks"])
def test_an_environment_is_built_once(tmp_path, name):
    clone = make_clone(tmp_path / name)
    result = bash(clone, ENSURE)
    assert result.stdout == "ready\n"
    assert "building .venv with Python 3." in result.stderr
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]
    assert_ready(clone)


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_it_is_brought_up_to_date_when_what_it_is_made_from_changes(clone, changed):
    bash(clone, ENSURE)
    pip_calls(clone)
    with (clone / changed).open("a") as file:
        file.write("# another line\n")
    result = bash(clone, ENSURE)
    assert "bringing .venv up to date with extras experiments" in result.stderr
    assert pip_calls(clone) == [installing("experiments")]
    assert_ready(clone)


def test_missing_extras_are_added_to_those_that_are_there(clone):
    bash(clone, "ensure_environment test")
    pip_calls(clone)
    bash(clone, ENSURE, VGJAX_EXTRAS="certified")
    assert pip_calls(clone) == [installing("certified", "experiments", "test")]
    assert_ready(clone)


def test_unknown_extras_are_refused_in_one_sentence(clone):
    result = bash(clone, ENSURE, VGJAX_EXTRAS="cuda11")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "VGJAX_EXTRAS must name extras of pyproject.toml (certified exp" in line
    assert "'cuda11' is none" in line
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("at", ["pip>=25.1", "constraints.txt"])
def test_an_installation_that_is_killed_half_way_is_started_again(clone, at):
    # No step of a script that is killed follows.
    kill = f'_pip() {{ [[ "$*" != *"{at}"* ]] || kill -9 $$; }}; {ENSURE}'
    assert bash(clone, kill).returncode == -9
    result = bash(clone, ENSURE)
    assert "an earlier installation was interrupted" in result.stderr
    assert "building .venv" in result.stderr
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]
    assert_ready(clone)


def test_an_installation_that_fails_is_started_again(clone):
    result = bash(clone, ENSURE, PIP_FAILS=".[experiments]")
    assert result.returncode == 1
    assert "the installation failed for the reason above" in result.stderr
    pip_calls(clone)
    assert "an earlier installation was interrupted" in bash(clone, ENSURE).stderr
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]
    assert_ready(clone)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_checkout_that_was_moved_or_copied_imports_itself(clone, tmp_path, how):
    bash(clone, ENSURE)
    pip_calls(clone)
    other = tmp_path / "other"
    how(clone, other, **({"symlinks": True} if how is shutil.copytree else {}))
    result = bash(other, ENSURE)
    assert "bringing .venv up to date" in result.stderr
    assert pip_calls(other) == [installing("experiments")]
    assert_ready(other)


def test_an_environment_made_by_hand_is_kept(clone):
    bash(clone, '"$VGJAX_PYTHON" -m venv .venv')
    (packages(clone) / "mine.py").touch()
    bash(clone, ENSURE)
    assert pip_calls(clone)[-1] == installing("experiments")
    assert (packages(clone) / "mine.py").exists()
    assert_ready(clone)


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_of_two_calls_at_once_the_second_waits_for_the_first(clone):
    result = bash(clone, f"{{ {ENSURE}; }} & {ENSURE}; wait", PIP_SECONDS="1")
    assert result.stdout == "ready\nready\n"
    assert result.stderr.count("another call is building .venv; waiting for it") == 1
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]


OLD = f"""
[ "$1" != --version ] || {{ echo Python 3.10.2; exit; }}
exec "{sys.executable}" -c "import sys; sys.version_info = (3, 10, 2); $2"
"""


def test_python_that_is_too_old_or_missing_is_named_in_one_sentence(clone):
    write_stub(clone / "bin" / "python3", OLD)
    for given in (
        {"VGJAX_PYTHON": str(clone / "bin" / "python3")},
        {"VGJAX_PYTHON": str(clone / "nowhere")},
        {"VGJAX_PYTHON": "", "PATH": only(clone / "bin")},
    ):
        result = bash(clone, ENSURE, **given)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        has = "no Python that runs" if "nowhere" in str(given) else "Python 3.10.2"
        named = given["VGJAX_PYTHON"]
        place = f"VGJAX_PYTHON={named} is" if named else "PATH has"
        assert f"Python 3.11 or newer is needed, and {place} {has};" in line
        assert not (clone / ".venv").exists()


def test_a_newer_python_is_found_behind_one_that_is_too_old(clone):
    write_stub(clone / "bin" / "python3", OLD)
    shutil.copy(clone / "stub", clone / "bin" / "python3.12")
    result = bash(clone, ENSURE, VGJAX_PYTHON="", PATH=only(clone / "bin"))
    assert result.stdout == "ready\n"
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]


def test_an_environment_of_another_python_than_asked_for_is_replaced(clone):
    bash(clone, ENSURE)
    pip_calls(clone)
    newer = (clone / "stub").read_text().partition("\n")[2]
    newer = f'[ "$1" != --version ] || {{ echo Python 3.99.0; exit; }}\n{newer}'
    patched = '-c "import sys; sys.version_info = (3, 99, 0); $2"'
    write_stub(clone / "newer", newer.replace('"$@"', patched))
    result = bash(clone, ENSURE, VGJAX_PYTHON=str(clone / "newer"))
    assert "that works with this Python; replacing it" in result.stderr
    assert "building .venv with Python 3.99.0" in result.stderr
    assert pip_calls(clone) == [UPGRADE, installing("experiments")]


def only(folder):
    """Fill a folder with the tools that the script needs, and no Python."""
    for tool in TOOLS.split():
        if path := shutil.which(tool):
            (folder / tool).symlink_to(path)
    return str(folder)


TOOLS = (
    "awk bash cat cksum cp cut dirname du flock grep head locale mkdir paste rm sed "
    "sort tr uname"
)

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
