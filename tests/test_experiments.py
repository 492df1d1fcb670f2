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

import vgjax

# Importing an experiment switches 64-bit mode on, for good.
pytestmark = pytest.mark.float64

for needed in ("tyro", "sklearn", "rich"):
    pytest.importorskip(needed, reason="needs the extra `experiments`")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments"
LINEAR = "linear_networks_follow_their_eigenvalues"
TRAINED = "spectra_of_trained_cells"
DEPTH = "depth_is_kinder_than_time"
SATURATION = "saturation_is_where_autodiff_goes_blind"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*_*.py"))
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


def toy_of(module):
    return module.lab.toy if hasattr(module, "lab") else module.TOY


def claimed(content):
    """Numbers of the claims, "1." and so on."""
    if "claims" in content:
        return [of["claim"].split()[0] for of in content["claims"]]
    return [of["statement"].split()[0] for of in content["expectations"]]


def run_toy(name, out):
    module = load(name)
    # optax.adam mixes dtypes; the session's switches are for the library.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if hasattr(module, "lab"):
            module.lab.run(module.measure, module.lab.toy, out)
        else:
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


@pytest.fixture(scope="module")
def depth(out):
    return run_toy(DEPTH, out)


@pytest.fixture(scope="module")
def saturation(out):
    return run_toy(SATURATION, out)


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
def test_every_claim_about_linear_networks_comes_true(linear):
    content, _ = linear
    assert len(content["claims"]) == 5
    # N = 4 is too small for the third, the norm of a large Gaussian matrix.
    failed = [of["claim"] for of in content["claims"] if not of["came_true"]]
    assert [claim[:2] for claim in failed] in ([], ["3."])


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


# Depth


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own linear", "own ReLU"])
def test_layers_with_weights_of_their_own_walk_at_random(depth, kind):
    content, arrays = depth
    of = {
        key.removeprefix(f"{kind}/"): value for key, value in content["numbers"].items()
    }
    config = load(DEPTH).lab.toy
    assert arrays[f"{kind}/log_norm"].shape == (config.trials, config.depth)
    assert of["variance_error"] < 0.1 * of["variance"]  # or anything would do
    off = abs(of["variance"] - of["predicted_variance"])
    assert off < 4 * of["variance_error"]
    assert abs(of["mean"]) < 4 * of["mean_error"]
    assert abs(of["correlation"]) < 4 * of["correlation_error"]


@pytest.mark.slow
def test_layers_that_share_a_matrix_grow_at_the_rate_of_its_eigenvalue(depth):
    content, arrays = depth
    slope = arrays["shared linear/slope"]
    predicted = arrays["shared linear/predicted_slope"]
    assert np.ptp(predicted) > 0.1  # they would not all agree by chance
    np.testing.assert_allclose(slope, predicted, rtol=0, atol=0.01)
    numbers = content["numbers"]
    assert numbers["shared linear/spread"] > 4 * numbers["own ReLU/spread"]


def test_norms_taken_out_layer_by_layer_add_up_to_that_of_the_whole():
    module = load(DEPTH)
    config = module.Config(width=6)
    cell = module.network("layers", "relu", config, jax.random.key(0))
    changes = module.log_changes(cell, jax.random.key(1), 8)

    keys = jax.random.split(jax.random.key(1), 3)
    layers = cell.random_inputs(keys[0], 8)
    Phi = vgjax.propagator(cell, cell.initialize_carry(rngs=keys[1]), layers)
    last = np.asarray(jax.random.normal(keys[2], (6,)))
    whole = np.linalg.norm(np.asarray(Phi).T @ last) / np.linalg.norm(last)
    assert changes.shape == (8,)
    np.testing.assert_allclose(np.sum(changes), np.log(whole), rtol=1e-10)


# Saturation


@pytest.mark.optimised
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_autodiff_loses_rows_and_directions_where_tanh_saturates(saturation, dtype):
    _, arrays = saturation
    of = {what: arrays[f"tanh/{dtype}/{what}"] for what in ("lost", "wrong")}
    assert np.all(of["lost"] <= of["wrong"])
    assert np.all(of["wrong"][0] == 0)  # gain 1
    assert of["lost"][-1].mean() > {"float32": 0.1, "float64": 0.01}[dtype]
    left = np.isfinite(arrays[f"tanh/{dtype}/plain"])
    assert np.all(left[0])
    assert not np.all(left[-1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_derivatives_lose_nothing_in_saturation(saturation, dtype):
    _, arrays = saturation
    exact, true = (arrays[f"tanh/{dtype}/{rule}"] for rule in ("exact", "true"))
    assert np.all(arrays[f"tanh/{dtype}/exact_lost"] == 0)
    tolerance = {"float32": 0.01, "float64": 0}[dtype]
    np.testing.assert_allclose(exact, true, rtol=0, atol=tolerance)
    # By formula: T log|det W| and log tanh' at every unit and time.
    volume = arrays[f"tanh/{dtype}/volume"]
    assert np.all(volume < -20)
    np.testing.assert_allclose(true.sum(axis=2), volume, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["tanh", "LSTM"])
def test_saturated_networks_have_the_same_weights_in_both_dtypes(cell):
    module = load(SATURATION)
    found = [module.build(cell, 4.0, 1, dtype, module.TOY) for dtype in module.DTYPES]
    single, double = (jax.tree.leaves(network) for network in found)
    assert {str(a.dtype) for a in single} == {"float32"}
    assert {str(a.dtype) for a in double} == {"float64"}
    for a, b in zip(single, double, strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float64), b)


@pytest.mark.optimised
def test_mean_field_foresees_more_blindness_in_float32_than_in_float64():
    module = load(SATURATION)
    predicted = module.predicted_fractions(module.Config(gains=(1.0, 4.0, 16.0)))
    for dtype in module.DTYPES:
        assert np.all(np.diff(predicted[dtype]["lost"]) >= 0)
        assert np.all(predicted[dtype]["lost"] <= predicted[dtype]["wrong"])
        assert predicted[dtype]["wrong"][0] < 1e-3
    assert predicted["float32"]["lost"][-1] > 0.5
    assert 0.1 < predicted["float64"]["lost"][-1] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("fixture", "count"), [("depth", 5), ("saturation", 7)])
def test_every_expectation_is_accounted_for(request, fixture, count):
    content, _ = request.getfixturevalue(fixture)
    assert claimed(content) == [f"{i}." for i in range(1, count + 1)]


# Files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        (LINEAR, "linear"),
        (TRAINED, "trained"),
        (DEPTH, "depth"),
        (SATURATION, "saturation"),
    ],
)
def test_results_are_written_with_all_it_takes_to_repeat_them(
    out, request, name, fixture
):
    content, _ = request.getfixturevalue(fixture)
    folder = out / name
    assert {path.name for path in folder.iterdir()} == FILES
    config = dataclasses.asdict(toy_of(load(name)))
    assert content["config"] == json.loads(json.dumps(config))
    assert content["seed"] == config["seed"]
    versions = {"jax", "flax", "optax", "numpy", "vgjax", "python"}
    assert versions <= set(content["versions"])
    assert content["versions"]["vgjax"] == vgjax.__version__
    assert content["device"]["platform"] == jax.devices()[0].platform
    assert set(content["dtypes"].values()) <= {"float64", "float32", "int32"}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in out.iterdir()} <= set(SCRIPTS)  # nothing else


# The command line


def run_as_script(module):
    if hasattr(module, "lab"):
        module.lab.main(module.measure)
    else:
        given = {"toy": module.TOY, "description": module.__doc__}
        load("_results").command_line(module.main, default=module.Config(), **given)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_every_field(name, monkeypatch, capsys):
    module = load(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        run_as_script(module)
    assert not ended.value.code
    shown = capsys.readouterr().out
    lines = [" ".join(line.strip("│ ").split()) for line in shown.splitlines()]
    for field in dataclasses.fields(load(name).Config):
        flag = f"--{field.name.replace('_', '-')}"
        (line,) = [line for line in lines if line.startswith(f"{flag} ")]
        # Flag and type, then what the comment says.
        assert len(line.split()) > 3 or len(lines[lines.index(line) + 1].split()) > 2
    assert "--toy" in shown
    assert "Question:" in shown


DRIVER = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
import _results, lab

def loud(measure):
    def announced(*args):
        print("measuring", flush=True)
        return measure(*args)
    return announced

command_line, run = _results.command_line, lab.Lab.run

def announced_main(main, **options):
    main.__globals__["measure"] = loud(main.__globals__["measure"])
    command_line(main, **options)

_results.command_line = announced_main
lab.Lab.run = lambda self, measure, *args: run(self, loud(measure), *args)
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
