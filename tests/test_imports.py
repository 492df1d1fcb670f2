"""What importing loads, and that imports only go down the floors of the house."""

import ast
import importlib
import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "vgjax"

# The table of docs/modules.md. A folder stands on one floor, all of it.
FLOORS = {
    "_checks": 0,
    "_linalg": 0,
    "_tolerances": -1,
    "_frames": 1,
    "_scaled": 1,
    "_qr_interval": 2,
    "_typing": 0,
    "_keys": 0,
    "_store": 0,
    "_programs": 1,
    "_calls": 0,
    "_layout": 1,
    "_system": 2,
    "activations": 1,
    "matrices": 1,
    "products": 1,
    "theory": 2,
    "steps": 3,
    "cells": 3,
    "trajectories": 3,
    "jacobians": 3,
    "spectra": 4,
    "lyapunov": 4,
    "gradients": 4,
    "clipping": 4,
    "tasks": 4,
    "training": 5,
    "sweeps": 6,
    "plots": 6,
}


def imported(source):
    """Dotted names of what a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                "." * node.level + f"{node.module or ''}.{alias.name}"
                for alias in node.names
            )


def breaches(module, source):
    """Imports of a module, named as "theory.eigenvalues", that do not go down."""
    own = module.split(".")[0]
    for name in imported(source):
        if name.startswith("."):
            yield f"{module} imports {name}: write it out"
        parts = name.split(".")
        if parts[0] != "vgjax":
            continue
        other = parts[1] if len(parts) > 1 else "vgjax itself"
        if other != own and FLOORS.get(other, 99) >= FLOORS[own]:
            yield f"{module} on floor {FLOORS[own]} imports {other}"


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    assert module.split(".")[0] in FLOORS
    assert list(breaches(module, MODULES[module].read_text())) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("products.graded", "from vgjax.spectra import growth_rates"),
        ("theory.eigenvalues", "import vgjax.trajectories"),
        ("theory.eigenvalues", "from vgjax import cells"),
        ("matrices", "def f():\n    from vgjax.products import push"),
        ("jacobians", "from vgjax import rollout"),
        ("jacobians", "import vgjax"),
        ("jacobians", "from . import trajectories"),
    ],
)
def test_a_breach_would_be_seen(module, line):
    assert list(breaches(module, line))


@pytest.mark.parametrize("line", ["from vgjax.products import push", "import jax"])
def test_what_goes_down_is_no_breach(line):
    assert list(breaches("spectra", line)) == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("flax", {"cells", "tasks", "training"}),
        ("optax", {"clipping", "tasks", "training"}),
        ("matplotlib", {"plots"}),
        ("equinox", set()),
        ("chex", set()),
        ("sklearn", set()),
        ("flint", {"products"}),
    ],
)
def test_other_libraries_are_known_where_they_belong(library, home):
    for module, path in MODULES.items():
        uses = any(n.split(".")[0] == library for n in imported(path.read_text()))
        assert not uses or module.split(".")[0] in home, module


def test_experiments_use_public_names_and_nothing_imports_them_or_the_scripts():
    for path in (ROOT / "experiments").glob("*.py"):
        # The lab stands on _store, as sweeps and checkpoints will.
        allowed = {"vgjax._store"} if path.name == "lab.py" else set()
        for name in set(imported(path.read_text())) - allowed:
            if name.startswith("vgjax"):
                assert not any(part.startswith("_") for part in name.split(".")), path
    for path in MODULES.values():
        roots = {name.split(".")[0] for name in imported(path.read_text())}
        assert roots.isdisjoint({"experiments", "scripts", "tests"}), path


@pytest.mark.parametrize("name", ["oracles", "gradient_systems", "numpy_cells"])
def test_oracles_import_nothing_of_ours(name):
    source = (ROOT / "tests" / f"{name}.py").read_text()
    assert "vgjax" not in {name.split(".")[0] for name in imported(source)}


FRESH = """
import json, sys
import jax
def settings():
    return {name: repr(jax.config._read(name)) for name in jax.config.values}
before = settings()
import vgjax
import vgjax._store
loaded = sorted(sys.modules)
changed = [name for name, value in settings().items() if value != before[name]]
absent = "plots" not in vars(vgjax)
vgjax.plots.spectrum
print(json.dumps({
    "loaded": loaded,
    "changed": changed,
    "absent": absent,
    "later": [name for name in sys.modules if name not in loaded],
    "settings": len(before),
}))
"""


def test_a_fresh_import_loads_only_what_was_asked_for_and_changes_no_setting():
    # -X importtime is slower; warnings are errors here too.
    run = [sys.executable, "-W", "error", "-c", FRESH]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    roots = {name.split(".")[0] for name in found["loaded"]}
    assert {"vgjax", "jax", "numpy"} <= roots
    unwanted = {"flax", "matplotlib", "sklearn", "chex", "equinox", "optax", "tyro"}
    unwanted |= {"flint"}
    assert roots.isdisjoint(unwanted)
    assert "vgjax.plots" not in found["loaded"]
    # A second or more together, for functions that few sessions call.
    parts = {".".join(name.split(".")[:2]) for name in found["loaded"]}
    slow = ["optimize", "integrate", "special", "linalg", "sparse", "stats", "fft"]
    assert parts.isdisjoint(f"scipy.{name}" for name in slow)
    assert found["absent"]
    assert found["changed"] == []
    assert found["settings"] > 50
    assert {"vgjax.plots", "matplotlib.pyplot"} <= set(found["later"])


def test_an_unknown_name_is_an_attribute_error():
    import vgjax

    with pytest.raises(AttributeError, match="'vgjax' has no attribute 'spectrogram'"):
        vgjax.spectrogram  # noqa: B018


def test_settled_names_are_at_the_top():
    import vgjax

    names = ["rollout", "state_jacobians", "propagator", "jacobian_spectrum"]
    for name in [*names, "growth_rates", "lyapunov_spectrum"]:
        assert callable(getattr(vgjax, name))
    assert vgjax.jacobians.state_jacobians is vgjax.state_jacobians


PUBLIC = [
    f"vgjax.{module.removesuffix('.__init__')}"
    for module in MODULES
    if not any(
        part.startswith("_") for part in module.removesuffix(".__init__").split(".")
    )
]


@pytest.mark.parametrize("name", ["vgjax", *PUBLIC])
def test_a_public_module_shows_its_public_names_and_nothing_else(name):
    module = importlib.import_module(name)
    assert sorted(set(module.__all__)) == dir(module)
    for public in module.__all__:
        assert getattr(module, public).__doc__, public


def test_what_a_package_shows_its_modules_show():
    for package in ("products", "spectra", "lyapunov", "gradients", "theory"):
        of_modules = {
            public
            for name in PUBLIC
            if name.startswith(f"vgjax.{package}.")
            for public in importlib.import_module(name).__all__
        }
        shown = set(importlib.import_module(f"vgjax.{package}").__all__)
        assert shown - of_modules <= {"Spectrum"}
        assert of_modules <= shown


@pytest.mark.parametrize("name", PUBLIC)
def test_every_field_of_a_result_is_documented(name):
    module = importlib.import_module(name)
    for public in map(module.__dict__.get, module.__all__):
        for field in getattr(public, "_fields", ()):
            assert f"\n      {field}: " in public.__doc__, f"{public.__name__}.{field}"
