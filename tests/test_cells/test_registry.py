"""A new cell is its class: names, options, pages and experiments find it there."""

import contextlib
import importlib.util
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vgjax
from vgjax import cells
from vgjax.cells import _registry
from vgjax.cells._cell import Cell, orthogonal_affine

ROOT = pathlib.Path(__file__).parents[2]
NAME = "squared_relu"


def load(path):
    """A script as a module; its folder is on the path, as when it is run."""
    path = ROOT / path
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[path.stem])
    return sys.modules[path.stem]


@contextlib.contextmanager
def registered():
    """A cell of two numbers for each feature, while the context lasts."""

    @_registry.zoo(NAME, checked="its closed form", defaults={"rate": 0.25}, power=2)
    class SquaredReLU(Cell):
        r"""A rectifier squared: $h_t = \rho \max(W h + U x + b, 0)^2$.

        Source:
          Nobody,
          nowhere (2026).
        """

        def make(self, key, *, rate: float = 0.5, shift: float = 0.0, power: int = 1):
            self.a = orthogonal_affine(key, self)
            self.rate, self.shift, self.power = rate, shift, power

        def advance(self, carry, x):
            a = self.a(carry[0], x) + self.shift
            h = self.rate * jnp.maximum(a, 0) ** self.power
            return (h, carry[0]), h

        def first_carry(self):
            return self.zeros(self.features), self.zeros(self.features)

    try:
        yield SquaredReLU
    finally:
        del _registry._ENTRIES[NAME]


@pytest.fixture(scope="module")
def table():
    return load("scripts/_cells_table.py")


def test_a_cell_is_found_by_name_with_the_options_of_its_class(dtype, tolerance):
    before = cells.names()
    with registered() as cls:
        assert cells.names() == (*before, NAME)
        assert cells.options(NAME) == {"rate": 0.25, "shift": 0.0}
        assert cells.about(NAME).cls is cls
        assert cells.about(NAME).source == "Nobody, nowhere (2026)."
        assert not cells.is_over_depth(NAME)
        with pytest.raises(ValueError, match=f"; the nearest is '{NAME}'"):
            cells.options("squared_rely")
        with pytest.raises(
            TypeError, match="`rat` .*options are rate, shift; .*'rate'"
        ):
            cells.build(NAME, 2, 3, key=jax.random.key(0), rat=1)
        cell = cells.build(NAME, 2, 3, key=jax.random.key(0), rate=2.0)
        assert type(cell) is cls
    assert cells.names() == before
    with pytest.raises(ValueError, match=f"but is '{NAME}'"):
        cells.options(NAME)
    x = cell.random_inputs(jax.random.key(1), 1)
    h = vgjax.rollout(cell, cell.initialize_carry(), x).outputs[0]
    U = np.asarray(cell.a.U[...], np.float64)
    expected = 2 * np.maximum(U @ np.asarray(x[0], np.float64), 0) ** 2
    np.testing.assert_allclose(h, expected, rtol=tolerance(1e-13, 1e-5))
    assert h.dtype == dtype
    assert expected.max() > 0


def test_the_committed_page_is_what_the_registry_gives(table):
    assert table.PAGE.read_text(encoding="utf-8") == table.page()


def test_a_cell_gets_a_row_and_a_source_in_the_page(table):
    row = (
        f"| `{NAME}` | `SquaredReLU` | A rectifier squared: "
        r"$h_t = \rho \max(W h + U x + b, 0)^2$. With power=2. | "
        "`rate=0.25`, `shift=0.0` | "
        "its closed form |\n"
    )
    with registered():
        page = table.page()
    assert row in page
    assert "- `SquaredReLU`: Nobody, nowhere (2026).\n" in page
    assert table.page() == page.replace(page[page.index("\n## A new cell is") :], "")


# Importing an experiment switches 64-bit mode on, for good.
@pytest.mark.float64
def test_a_cell_enters_the_comparison_of_the_experiments_at_their_size():
    pytest.importorskip("tyro", reason="needs the extra `experiments`")
    module = load("experiments/remedies_at_initialisation.py")
    config = module.Config()
    before = module.remedies(28)
    with registered():
        assert tuple(module.remedies(28)) == (*before, NAME)
        assert module.chosen(config)[-1] == NAME
        # A state of 28 is 14 features of two numbers; W, U and b are trained.
        count = f"{14 * 14 + 14 * 4 + 14}"
        row = (NAME, count, "28 = 2 x 14", "its closed form")
        assert module.zoo_table(config)[-1] == row
    assert module.remedies(28) == before


@pytest.mark.parametrize("name", cells.names())
def test_the_class_of_a_cell_is_public(name):
    about = cells.about(name)
    assert getattr(cells, about.cls.__name__) is about.cls
    assert about.cls.__name__ in dir(cells)
    assert issubclass(about.cls, nnx.Module)
    assert about.source


@pytest.mark.once
def test_names_are_in_one_order_whichever_file_is_imported_first():
    code = "import vgjax.cells._depth; print(*vgjax.cells.names())"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert tuple(done.stdout.split()) == cells.names()
    # Of several names of one class the upper decorator's comes first.
    assert cells.names()[:3] == ("linear", "tanh", "relu")
