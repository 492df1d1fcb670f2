"""What round-off decides is said: of leading values and of exponents alike."""

# pyright: reportAttributeAccessIssue=false

import pathlib

import balls
import flint
import gmpy2
import jax.numpy as jnp
import numpy as np
import pytest
import systems

from vgjax import lyapunov, spectra
from vgjax._frames import random_basis

DATA = pathlib.Path(__file__).parents[1] / "data"
NETWORKS = sorted(path.stem for path in DATA.glob("*.npz"))


def driven(h, A):
    """A step whose Jacobian is its input."""
    return A @ h, None


def fading_and_back(others=0):
    """A scalar that fades by 2^-100 and comes back, beside a rotation by 1 rad."""
    chain = np.zeros((200, 3 + others, 3 + others))
    chain[:100, 0, 0], chain[100:, 0, 0] = 0.5, 2
    chain[:, 1:3, 1:3] = [[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]]
    for i in range(3, 3 + others):
        chain[:, i, i] = 0.3 / (i - 2)
    return chain


def in_order(chain, order):
    order = np.concatenate([order, np.arange(len(order), chain.shape[1])]).astype(int)
    return jnp.asarray(chain[:, order][:, :, order])


def turned(chain):
    """The same in other coordinates, where no entry is zero."""
    Q = systems.orthogonal(np.random.default_rng(3), chain.shape[1])
    return jnp.asarray(Q @ chain @ Q.T)


def leading(chain, k):
    return spectra.leading_spectrum(driven, jnp.zeros(chain.shape[1]), chain, k=k)


def exponents(chain, **options):
    return lyapunov.lyapunov_spectrum(
        driven, jnp.zeros(chain.shape[1]), chain, **options
    )


def true_exponents(chain):
    """Mean log |R_ii| from the first frame on, descending, from balls."""
    T, N, _ = chain.shape
    bits = 2 * balls._bits(chain)
    frame = random_basis(N, N, np.dtype(float))
    ((_, product),) = balls._products(chain, [T], bits)
    with flint.ctx.workprec(bits):
        product = product * flint.arb_mat(frame.tolist())
    image = balls._midpoints(np.array(product.tolist(), dtype=object), bits)
    logs = []
    with gmpy2.context(precision=bits):
        while image.shape[1]:
            column, image = image[:, 0], image[:, 1:]
            size = gmpy2.sqrt(column @ column)
            logs.append(float(gmpy2.log(size)))
            image = image - np.outer(column / size, (column / size) @ image)
    return np.sort(logs)[::-1] / T


@pytest.mark.float64
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_parts_that_do_not_feed_each_other_stay_apart_or_it_is_said(order):
    chain = in_order(fading_and_back(), order)
    found = leading(chain, k=3)
    np.testing.assert_allclose(found.log_singular_values, 0, atol=1e-10)
    assert found.converged.all()
    # What is swept, and exponents, are made orthonormal on the way.
    found = leading(in_order(fading_and_back(13), order), k=3)
    off = np.abs(np.asarray(found.log_singular_values))
    assert (off[np.asarray(found.converged)] < 1e-9).all()
    for tol in (0.0, None):
        measured = exponents(chain, tol=tol)
        off = np.abs(np.asarray(measured.exponents))
        assert (off[np.asarray(measured.resolved)] < 1e-6).all()


@pytest.mark.float64
def test_where_rounding_of_the_matrices_decides_it_is_said():
    # Entries of the turned matrices are rounded at eps, and 2^100 times that is not 0.
    for others in (0, 13):
        with pytest.warns(RuntimeWarning, match="3 of 3 leading"):
            found = leading(turned(fading_and_back(others)), k=3)
        assert abs(found.log_singular_values[0]) > 1
        assert np.isinf(found.error).all()
        assert not found.converged.any()
        for tol in (0.0, None):
            with pytest.warns(RuntimeWarning, match="lost in round-off"):
                measured = exponents(turned(fading_and_back(others)), tol=tol)
            assert abs(measured.exponents[0]) > 0.01
            assert not measured.resolved[:3].any()
            assert measured.resolved[3:].all()


@pytest.mark.float64
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_of_real_networks_nothing_wrong_is_converged_or_resolved(name):
    with np.load(DATA / f"{name}.npz") as data:
        T = int(data["steps"][-1])
        chain, truth = data["jacobians"][:T], data["log_singular_values"][-1]
    found = leading(jnp.asarray(chain), k=chain.shape[1])
    off = np.abs(np.asarray(found.log_singular_values) - truth)
    assert (off <= np.asarray(found.error))[np.isfinite(truth)].all()
    assert (found.error[found.converged] < 2e-9).all()
    exact = true_exponents(chain)
    for tol in (0.0, None):
        measured = exponents(jnp.asarray(chain), tol=tol)
        off = np.abs(np.asarray(measured.exponents) - exact)
        assert (off[np.asarray(measured.resolved)] < 1e-3).all()


@pytest.mark.float64
def test_leaks_of_the_burn_in_are_forgotten():
    chain = np.concatenate([fading_and_back(), fading_and_back()[:50]])
    chain[200:, 0, 0] = 1
    measured = exponents(turned(chain), burn_in=200)
    np.testing.assert_allclose(measured.exponents, 0, atol=1e-6)
    assert measured.resolved.all()
