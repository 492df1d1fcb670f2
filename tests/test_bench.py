"""The tables of scripts/bench, the processes it measures in, and its list of questions.

What it measures is for a quiet machine: `scripts/bench --toy` runs it.
"""

import importlib
import math
import os
import sys
from pathlib import Path

import pytest

# Nothing here has a dtype; the float32 run need not repeat it.
pytestmark = pytest.mark.float64

FOLDER = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def bench(monkeypatch):
    """Import a module of scripts/_bench."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"_bench.{name}")


def test_a_table_aligns_its_columns_and_ends_rows_with_verdicts(bench, capsys):
    table = bench("_table")
    bounded = table.Bounded
    printed = table.Table("Times", "case 6s | lines of\ncode 6d | s 8.2f")
    printed.row("stack", 1234, bounded(1.5, 2))
    printed.row("gru", None, bounded(3.0, 2))
    printed.row("lstm", bounded(7, 10, least=True), 0.25)
    assert capsys.readouterr().out.splitlines() == [
        "Times",
        "        lines of",
        "case        code         s",
        "stack       1234      1.50  at most 2: met",
        "gru            -      3.00  at most 2: MISSED",
        "lstm           7      0.25  at least 10: MISSED",
    ]
    assert printed.missed == 2


@pytest.mark.parametrize("least", [False, True])
def test_a_bound_holds_with_equality_and_not_for_nan(bench, least):
    bounded = bench("_table").Bounded
    assert bounded(2.0, 2, least).met
    assert not bounded(math.nan, 2, least).met


def test_what_is_measured_alone_is_in_another_process_and_environment(
    bench, monkeypatch
):
    alone = bench("_measure").alone
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "somewhere")
    before = dict(os.environ)
    assert alone(os.getpid) != os.getpid()
    assert alone(os.getenv, "OPENBLAS_NUM_THREADS") is None
    assert alone(os.getenv, "OPENBLAS_NUM_THREADS", threads="1") == "1"
    assert alone(os.getenv, "JAX_COMPILATION_CACHE_DIR") is None
    assert alone(os.getenv, "MORE", MORE="yes") == "yes"
    with pytest.raises(ZeroDivisionError):
        alone(divmod, 1, 0)
    assert dict(os.environ) == before


def test_every_file_answers_a_question_that_can_be_asked_by_its_name(
    bench, monkeypatch, capsys
):
    files = {path.stem for path in (FOLDER / "_bench").glob("[!_]*.py")}
    command = bench("__main__")
    assert {*command.QUESTIONS, "against"} == files
    assert all(callable(bench(name).report) for name in files)
    asked = {
        "": [],
        "--toy": [],
        "--errors": ["errors"],
        "speed memory": ["speed", "memory"],
    }
    for line, names in asked.items():
        monkeypatch.setattr(sys, "argv", ["bench", *line.split()])
        options = command.parsed()
        assert options.questions + options.flags == names
    monkeypatch.setattr(sys, "argv", ["bench", "speeed"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no question is called 'speeed'; there are spe" in capsys.readouterr().err
