import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import vgjax

# Importing an experiment switches 64-bit mode on, for good.
pytestmark = pytest.mark.float64

for needed in ("tyro", "sklearn", "rich"):
    pytest.importorskip(needed, reason="needs the extra `experiments`")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments"
LINEAR = "linear_networks_follow_their_eigenvalues"
TRAINED = "spectra_of_trained_cells"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
CELLS = ("tanh", "GRU", "LSTM")
FILES = {"results.json", "arrays.npz", "figure.png", "figure.pdf"}


def load(name):
    """An experiment as a module; the folder is on the path, as when it is run."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def environment():
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_toy(name, out):
    module = load(name)
    # optax.adam mixes dtypes; the session's switches are for the library.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        module.main(module.TOY, out)
    content = json.loads((out / name / "results.json").read_text(encoding="utf-8"))
    with np.load(out / name / "arrays.npz") as arrays:
        return content, dict(arrays)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def linear(out):
    return run_toy(LINEAR, out)


@pytest.fixture(scope="module")
def trained(out):
    return run_toy(TRAINED, out)


# Linear networks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "symmetric"])
def test_normal_networks_grow_at_the_rates_of_their_eigenvalues(linear, name):
    _, arrays = linear
    rates, predicted = arrays[f"{name}/rates"], arrays[f"{name}/predicted_rates"]
    assert np.ptp(predicted) > 0.5  # they would not all agree by chance
    np.testing.assert_allclose(rates, predicted, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_gap_of_a_gaussian_matrix_shrinks_as_one_over_t(linear):
    _, arrays = linear
    steps, gap = arrays["Gaussian/gap_steps"], arrays["Gaussian/gap"]
    tenfold = gap[steps == 200] / gap[steps == 2000]
    assert gap[0] > 0.1
    assert 9 < tenfold < 11


@pytest.mark.slow
def test_shear_is_1111_times_its_radius(linear):
    content, arrays = linear
    # tau / 2 + sqrt(1 + tau^2 / 4) with tau = 200 * 5 / 0.9
    assert content["numbers"]["shear/ratio"] == pytest.approx(1111.112011, rel=1e-6)
    np.testing.assert_allclose(
        arrays["shear/log_singular_values"], arrays["shear/closed_form"], atol=1e-10
    )


@pytest.mark.slow
def test_every_expectation_of_the_linear_networks_comes_true(linear):
    content, _ = linear
    assert len(content["expectations"]) == 5
    # N = 4 is too small for the third, the norm of a large Gaussian matrix.
    failed = [e["statement"] for e in content["expectations"] if not e["came_true"]]
    assert [statement[:2] for statement in failed] in ([], ["3."])


# Trained cells


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_spectra_of_cells_are_whole_and_descending(trained, cell, when):
    _, arrays = trained
    config = load(TRAINED).TOY
    N = config.features * (2 if cell == "LSTM" else 1)
    values = {p: arrays[f"{cell}/{when}/{p}"] for p in ("forward", "lag")}
    for found in values.values():
        assert found.shape == (config.spectrum_images, 64, N)
        assert found.dtype == np.float64
        assert np.all(np.isfinite(found))
        assert np.all(np.diff(found, axis=-1) <= 0)
    # Both end with the product over the whole image, multiplied from either end.
    np.testing.assert_allclose(
        values["forward"][:, -1], values["lag"][:, -1], rtol=0, atol=1e-8
    )
    for name in ("rates", "predicted_rates"):
        found = arrays[f"{cell}/{when}/{name}"]
        assert found.shape == (config.spectrum_images, N)
        assert np.all(np.isfinite(found))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_gradients_shrink_within_the_bounds_of_singular_values(trained, cell, when):
    _, arrays = trained
    gradient = arrays[f"{cell}/{when}/log_gradient"]
    lag = arrays[f"{cell}/{when}/lag"]
    shrunk = gradient[:, 1:] - gradient[:, :1]
    assert gradient.shape == (len(lag), 65)
    assert np.all(shrunk <= lag[..., 0] + 1e-9)
    assert np.all(shrunk >= lag[..., -1] - 1e-9)


@pytest.mark.slow
def test_untrained_tanh_cell_has_an_orthogonal_matrix(trained):
    _, arrays = trained
    predicted = arrays["tanh/before/predicted_rates"]
    np.testing.assert_allclose(predicted, 0, atol=1e-6)  # weights are float32
    assert np.all(arrays["tanh/before/rates"] < -0.01)  # because tanh' < 1


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_training_is_recorded_at_every_step(trained, cell):
    content, arrays = trained
    config = load(TRAINED).TOY
    steps = config.epochs * ((1797 - config.test_images) // config.batch_size)
    before = arrays[f"{cell}/training/norm_before_clip"]
    after = arrays[f"{cell}/training/norm_after_clip"]
    assert before.shape == after.shape == (steps,)
    np.testing.assert_allclose(after, np.minimum(before, config.max_norm), rtol=1e-5)
    loss = arrays[f"{cell}/training/loss"]
    assert loss[-1] < loss[0]
    fired = content["numbers"][f"{cell}/training/clip_fired"]
    assert fired == np.mean(before > config.max_norm)
    assert 0 <= content["numbers"][f"{cell}/after/accuracy"] <= 1
    assert content["numbers"]["guess_accuracy"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_first_gradient_is_the_last_carried_back_by_the_propagator(cell):
    module = load(TRAINED)
    network = module.build(cell, dataclasses.replace(module.TOY, features=3))
    network = jax.tree.map(lambda a: a.astype(jnp.float64), network)
    image = jax.random.normal(jax.random.key(1), (12, 1))
    label = jnp.asarray(4)
    pushes = module.no_pushes(network, image)
    gradient, _ = jax.grad(module.loss_of_image, 1, has_aux=True)(
        network, pushes, image, label
    )
    flat = np.concatenate([a for a in jax.tree.leaves(gradient)], axis=1)
    Phi = vgjax.propagator(network.cell, module.start(network, image.dtype), image)
    np.testing.assert_allclose(flat[0], np.asarray(Phi).T @ flat[-1], rtol=1e-10)
    log_norm = module.log_gradient_by_lag(network, image[None], label[None])
    expected = np.log(np.linalg.norm(flat, axis=1))[::-1]
    np.testing.assert_allclose(log_norm[0], expected, rtol=1e-12)


def test_digits_are_split_without_overlap_and_in_proportion():
    module = load(TRAINED)
    digits = module.load(module.Config())
    assert digits.train_images.shape == (1437, 64, 1)
    assert digits.test_images.shape == (360, 64, 1)
    shares = [
        np.bincount(x) / len(x) for x in (digits.train_labels, digits.test_labels)
    ]
    np.testing.assert_allclose(*shares, atol=2 / 360)
    train = {np.asarray(x).tobytes() for x in digits.train_images}
    assert not any(np.asarray(x).tobytes() in train for x in digits.test_images)


def test_annihilated_directions_are_counted_and_left_out_of_means():
    module = load(TRAINED)
    values = np.array([[[2.0, -np.inf, -np.inf]], [[4.0, 1.0, -np.inf]]])
    mean, deviation = module.over_images(values)
    np.testing.assert_array_equal(mean, [[3.0, 1.0, np.nan]])
    np.testing.assert_array_equal(deviation, [[1.0, 0.0, np.nan]])
    assert module.annihilated(values) == 1.5


# Files


@pytest.mark.slow
@pytest.mark.parametrize("name", [LINEAR, TRAINED])
def test_results_are_written_with_all_it_takes_to_repeat_them(
    out, linear, trained, name
):
    content = (linear if name == LINEAR else trained)[0]
    folder = out / name
    assert {path.name for path in folder.iterdir()} == FILES
    assert content["config"] == dataclasses.asdict(load(name).TOY)
    assert content["seed"] == load(name).TOY.seed
    versions = {"jax", "flax", "optax", "numpy", "vgjax", "python"}
    assert versions <= set(content["versions"])
    assert content["versions"]["vgjax"] == vgjax.__version__
    assert content["device"]["platform"] == jax.devices()[0].platform
    assert set(content["dtypes"].values()) <= {"float64", "float32", "int32"}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in out.iterdir()} <= {LINEAR, TRAINED}  # nothing else


def save(out, figure, number=1.0):
    results = load("_results")
    module = load(TRAINED)
    measured = {"a": {"x": np.arange(3.0), "y": number}}
    return results.save("made_up.py", module.TOY, measured, [], figure, out)


def test_numbers_that_are_not_finite_stay_readable_by_strict_json(tmp_path):
    folder = save(tmp_path, Figure(), -np.inf)
    content = json.loads(
        (folder / "results.json").read_text(), parse_constant=pytest.fail
    )
    assert content["numbers"] == {"a/y": "-inf"}


def test_interrupted_save_leaves_the_previous_results_as_they_were(tmp_path):
    class Interrupted(Figure):
        def savefig(self, path, **options):
            if Path(path).suffix == ".pdf":
                raise KeyboardInterrupt
            super().savefig(path, **options)

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, Interrupted())
    assert list(tmp_path.iterdir()) == []

    folder = save(tmp_path, Figure(), 1.0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, Interrupted(), 2.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


# The command line


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_every_field(name, tmp_path):
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--help"]
    shown = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    lines = [" ".join(line.strip("│ ").split()) for line in shown.splitlines()]
    for field in dataclasses.fields(load(name).Config):
        flag = f"--{field.name.replace('_', '-')}"
        (line,) = [line for line in lines if line.startswith(f"{flag} ")]
        # Flag and type, then what the comment says.
        assert len(line.split()) > 3 or len(lines[lines.index(line) + 1].split()) > 2
    assert "--toy" in shown
    assert "Question:" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "features", "seed"),
    [([], 64, 1), (["--toy"], 6, 1), (["--seed", "5", "--toy"], 6, 5)],
)
def test_toy_flag_starts_from_the_toy_configuration(
    monkeypatch, tmp_path, flags, features, seed
):
    results, module = load("_results"), load(TRAINED)
    monkeypatch.setattr(sys, "argv", ["x.py", *flags, "--out", str(tmp_path)])
    seen = []
    results.command_line(
        lambda *given: seen.append(given),
        default=module.Config(),
        toy=module.TOY,
        description="",
    )
    ((config, out),) = seen
    assert (config.features, config.seed, out) == (features, seed, tmp_path)


DRIVER = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
import _results

real = _results.command_line

def announced(main, **options):
    measure = main.__globals__["measure"]

    def loud(*args):
        print("measuring", flush=True)
        return measure(*args)

    main.__globals__["measure"] = loud
    real(main, **options)

_results.command_line = announced
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [LINEAR, TRAINED])
def test_interrupted_run_says_so_and_leaves_no_file(name, tmp_path):
    driver = DRIVER.format(folder=str(FOLDER))
    script = str(FOLDER / f"{name}.py")
    command = [sys.executable, "-c", driver, script, "--toy", "--out", str(tmp_path)]
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while "measuring" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted; nothing was written."
    assert not list(tmp_path.iterdir())
