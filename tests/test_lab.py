"""The lab: claims before measurements, verdicts, and what is stored with them."""

import dataclasses
import errno
import json
import os
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

# Importing the lab switches 64-bit mode on, for good: not in a session in float32.
if not jax.config.jax_enable_x64:
    pytest.skip("the lab computes in float64", allow_module_level=True)

for needed in ("tyro", "rich"):
    pytest.importorskip(needed, reason="needs the extra `experiments`")

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import lab  # noqa: E402

FILES = {"results.json", "arrays.npz", "figure.png", "figure.pdf"}


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3  # of the array, numbers
    seed: int = 1  # of nothing


def measure(config):
    sys.stdout.write("measuring\n")
    return {"x": np.arange(config.size), "last": config.size - 1}


def made_up(second="The last is at most 10."):
    made = lab.Lab("some/made_up.py", "Doc.\n", default=Config(), toy=Config(2))
    made.claim("The first is 0, and the last at least 2.")(
        lambda result: {
            "first": lab.within(result["x"][0], 0, 0),
            "last": lab.at_least(result["last"], 2),
        }
    )
    made.claim(second)(
        lambda result, config: lab.at_most(result["last"] * config.seed, 10)
    )
    made.table("Numbers, {size}", "n", "its square", note="All {size}.")(
        lambda result: ([str(x), str(x**2)] for x in result["x"])
    )
    made.panel("All {size}", "n", "x")(
        lambda ax, result: ax.plot(result["x"], label="x")
    )
    return made


def stored(out):
    return json.loads((out / "made_up" / "results.json").read_text(encoding="utf-8"))


def test_claims_are_printed_before_anything_is_measured(tmp_path, capsys):
    made_up().run(measure, Config(), tmp_path)
    before, after = capsys.readouterr().out.split("measuring\n")
    assert "1. The first is 0, and the last at least 2." in before
    assert "2. The last is at most 10." in before
    assert "Numbers, 3" in after
    assert "All 3." in after
    assert "2 of 2 claims came true." in after


def test_claims_are_stored_with_what_was_found_and_the_verdict(tmp_path, capsys):
    made_up().run(measure, Config(size=2), tmp_path)
    first, second = stored(tmp_path)["claims"]
    assert first["claim"] == "1. The first is 0, and the last at least 2."
    assert not first["came_true"]
    assert first["checks"] == {
        "first": {"value": 0, "low": 0, "high": 0},
        "last": {"value": 1, "low": 2, "high": "inf"},
    }
    assert second["came_true"]
    assert second["checks"] == {"": {"value": 1, "low": "-inf", "high": 10}}
    said = " ".join(capsys.readouterr().out.split())
    assert "DID NOT COME TRUE 1. The first" in said
    assert "first 0 (0 to 0); last 1 (at least 2)" in said
    assert "came true 2. The last is at most 10. 1 (at most 10)" in said
    assert "1 of 2 claims came true." in said
    assert {path.name for path in (tmp_path / "made_up").iterdir()} == FILES


def test_a_claim_that_was_edited_after_a_run_shows(tmp_path, capsys):
    for second, shown in (("Old.", False), ("Old.", False), ("New.", True)):
        made_up(second).run(measure, Config(), tmp_path)
        assert ("was judged by other claims" in capsys.readouterr().out) == shown


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (lab.at_most(1.0, 1.0), True),
        (lab.at_most(1.1, 1.0), False),
        (lab.at_least(1.0, 1.0), True),
        (lab.at_least(0.9, 1.0), False),
        (lab.within(2.0, 1.0, 3.0), True),
        (lab.within(3.1, 1.0, 3.0), False),
        (lab.at_most(np.nan, 1.0), False),
        (lab.at_least(np.inf, 1.0), True),
    ],
)
def test_a_check_holds_within_its_interval_and_never_for_nan(check, holds):
    assert check.holds is holds


def test_a_panel_is_drawn_for_each_question_and_nothing_else():
    made = made_up()
    for title in ("second", "third", "fourth"):
        made.panel(title, "x", "y", legend=None)(lambda ax, _: ax.plot([1, 2]))
    figure = made._draw(measure(Config()), Config())
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["All 3", "second", "third", "fourth"]
    legends = [ax.get_legend() is not None for ax in figure.axes]
    assert legends == [True, False, False, False]


def test_progress_in_a_pipe_is_a_line_when_an_item_is_done(monkeypatch, capsys):
    now = iter([0, 2, 2, 2.5, 7, 7])  # at the start, then once or twice an item
    monkeypatch.setattr(lab.time, "perf_counter", lambda: next(now))
    said = []
    for _ in lab.track(["a", "b", "c"], "Measuring"):
        said.append(capsys.readouterr().out)
    said.append(capsys.readouterr().out)
    assert said == ["", "Measuring: 1 of 3, 2 s\n", "", "Measuring: 3 of 3, 7 s\n"]


def test_help_lists_the_claims(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["made_up.py", "--help"])
    with pytest.raises(SystemExit):
        made_up().main(pytest.fail)
    shown = capsys.readouterr().out
    assert "1. The first is 0, and the last at least 2." in shown
    assert "2. The last is at most 10." in shown


@pytest.mark.parametrize(
    ("flags", "size", "seed"),
    [([], 3, 1), (["--toy"], 2, 1), (["--seed", "5", "--toy"], 2, 5)],
)
def test_toy_flag_starts_from_the_toy_configuration(
    monkeypatch, tmp_path, flags, size, seed
):
    monkeypatch.setattr(sys, "argv", ["made_up.py", *flags, "--out", str(tmp_path)])
    made_up().main(measure)
    assert stored(tmp_path)["config"] == {"size": size, "seed": seed}


@pytest.mark.parametrize("name", ["results.json", "figure.png"])
def test_what_stands_in_the_way_is_told_before_the_run(monkeypatch, tmp_path, name):
    taken = tmp_path / "made_up" / name
    taken.mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["made_up.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"{taken} is a folder. Nothing was run"):
        made_up().main(pytest.fail)
    assert list(tmp_path.rglob("*")) == [taken.parent, taken]


class Stopped(Figure):
    """One that cannot be saved as a PDF below a folder."""

    def __init__(self, error, below="/"):
        super().__init__()
        self.error, self.below = error, Path(below)

    def savefig(self, path, **options):
        if Path(path).suffix == ".pdf" and self.below in Path(path).parents:
            raise self.error
        super().savefig(path, **options)


def test_interrupted_save_leaves_the_previous_results_as_they_were(tmp_path):
    made_up().run(measure, Config(), tmp_path)
    folder = tmp_path / "made_up"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        lab.save(folder, Config(), {"x": 2.0}, Stopped(KeyboardInterrupt()))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_results_of_a_run_whose_disk_filled_up_are_written_elsewhere(
    monkeypatch, tmp_path, capsys
):
    full = Stopped(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), tmp_path / "out")
    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spare"))
    lab.save(tmp_path / "out" / "x", Config(), {}, full)
    (written,) = (tmp_path / "spare").glob("*/x")
    assert {path.name for path in written.iterdir()} == FILES
    assert not list((tmp_path / "out").iterdir())
    said = capsys.readouterr()
    assert f"Written: {written}/" in said.out
    assert "out/x can no longer be written to: No space left on device." in said.err
