"""Leading singular values without Jacobians: closed forms and the exact spectrum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import systems
from flax import nnx

import vgjax
from vgjax import spectra, steps


def driven(h, A):
    """A step whose Jacobian is its input."""
    return A @ h, None


def tanh_cell(W, h, x):
    return jnp.tanh(W @ h + x), None


def network(N=6, T=60, gain=1.2, dtype=float):
    rng = np.random.default_rng(1)
    W = jnp.asarray(gain * rng.standard_normal((N, N)) / N**0.5, dtype)
    x = jnp.asarray(0.3 * rng.standard_normal((T, N)), dtype)
    return steps.from_function(tanh_cell, W), jnp.zeros(N, dtype), x


def of_chain(A, **options):
    A = jnp.asarray(A)
    return spectra.leading_spectrum(driven, jnp.zeros(A.shape[1]), A, **options)


@pytest.mark.float64
def test_telescoping_chain_has_its_values_in_closed_form():
    # More than the block of 8 spare vectors: none of it is the whole spectrum.
    log_scales = np.cos(np.arange(1, 201)[:, None] * np.arange(1, 31)) / 3
    log_scales = log_scales - np.arange(30) / 10
    chain, answer = systems.telescoping(1, log_scales)
    found = of_chain(chain, k=4)
    np.testing.assert_allclose(found.log_singular_values, answer[-1, :4], atol=1e-8)
    assert found.converged.all()


@pytest.mark.float64
def test_ring_with_equal_pairs_is_found_to_a_millionth():
    # One value and then pairs: k = 4 cuts a pair, and so does the block of 12.
    chain, answer = systems.ring(32, 0.1, 200)
    found = of_chain(chain, k=4)
    np.testing.assert_allclose(found.log_singular_values, answer[-1, :4], atol=1e-6)
    assert found.converged.all()


@pytest.mark.float64
def test_scales_far_beyond_floats_are_kept_apart():
    log_scales = np.broadcast_to(-8.0 * np.arange(12), (300, 12))
    chain, answer = systems.telescoping(2, log_scales)
    found = of_chain(chain, k=3)
    np.testing.assert_allclose(found.log_singular_values, answer[-1, :3], atol=1e-8)


@pytest.mark.float64
@pytest.mark.parametrize("options", [{}, {"lag": 37}, {"checkpoint_every": 7}])
def test_values_and_vectors_are_those_of_the_propagator(options):
    step, h, x = network(N=14, T=45, gain=2.5)
    found = spectra.leading_spectrum(step, h, x, k=3, **options)
    J = np.asarray(vgjax.state_jacobians(step, h, x))[-options.get("lag", 45) :]
    Phi = functools.reduce(lambda P, A: A @ P, J)
    U, S, Vt = np.linalg.svd(Phi)
    np.testing.assert_allclose(found.log_singular_values, np.log(S[:3]), atol=1e-9)
    assert found.converged.all()
    left, right = np.asarray(found.left), np.asarray(found.right)
    np.testing.assert_allclose(Phi @ right, left * S[:3], atol=1e-7 * S[0])
    np.testing.assert_allclose(abs(np.sum(U[:, :3] * left, 0)), 1, atol=1e-9)
    np.testing.assert_allclose(abs(np.sum(Vt[:3].T * right, 0)), 1, atol=1e-9)
    # Left and right are not one another here.
    assert abs(U[:, 0] @ Vt[0]) < 0.9


def test_all_of_a_small_spectrum_agrees_with_the_exact_one(dtype, tolerance):
    step, h, x = network(dtype=dtype)
    found = spectra.leading_spectrum(step, h, x, k=6)
    exact = vgjax.jacobian_spectrum(step, h, x, every=60).log_singular_values[0]
    # N <= k + 8: the same product, read at its end instead of at a record.
    assert found.sweeps == 0
    np.testing.assert_allclose(
        found.log_singular_values, exact, atol=tolerance(1e-10, 1e-2)
    )
    assert found.log_singular_values.dtype == found.left.dtype == dtype
    assert found.converged.all()


def families():
    rng = np.random.default_rng(3)
    N, T = 24, 60  # one size, so that it is compiled once
    orthogonal = np.array([systems.orthogonal(rng, N) for _ in range(T)])
    saturated = systems.tanh_chain(1, N, 16.0, T)
    return {
        "tanh, gain 0.9": systems.tanh_chain(1, N, 0.9, T),
        "tanh, gain 3": systems.tanh_chain(1, N, 3.0, T),
        "saturated rows": saturated,
        "saturated columns": np.swapaxes(saturated, 1, 2),
        "Gaussian": systems.gaussian_chain(1, N, T),
        "near-orthogonal": 0.99 * orthogonal,
    }


@pytest.mark.float64
@pytest.mark.slow
@pytest.mark.parametrize("name", families())
def test_leading_values_agree_with_the_exact_spectrum_of(name):
    chain = families()[name]
    found = of_chain(chain, k=5)
    exact = vgjax.products.product_spectrum(jnp.asarray(chain), every=len(chain))
    exact = exact.log_singular_values[0, :5]
    np.testing.assert_allclose(found.log_singular_values, exact, atol=1e-8)
    assert found.converged.all()


@pytest.mark.float64
@pytest.mark.slow
def test_leading_values_of_128_numbers_of_state_agree_with_the_exact_ones():
    cell = nnx.LSTMCell(2, 64, dtype=float, param_dtype=float, rngs=nnx.Rngs(1))
    carry = (jnp.zeros(64), jnp.zeros(64))
    x = jnp.asarray(np.random.default_rng(1).standard_normal((100, 2)))
    found = spectra.leading_spectrum(cell, carry, x, k=8)
    exact = vgjax.jacobian_spectrum(cell, carry, x, every=100).log_singular_values[0]
    np.testing.assert_allclose(found.log_singular_values, exact[:8], atol=1e-8)
    assert found.converged.all()


@pytest.mark.float64
def test_what_has_not_converged_is_said_and_is_a_lower_bound():
    chain = systems.gaussian_chain(1, 40, 5)
    with pytest.warns(RuntimeWarning, match=r"of 3 leading .* in 2 sweeps"):
        found = of_chain(chain, k=3, max_sweeps=2)
    assert found.sweeps == 2
    assert not found.converged.all()
    exact = vgjax.products.product_spectrum(jnp.asarray(chain), every=5)
    exact = exact.log_singular_values[0, :3]
    below = exact - found.log_singular_values
    assert (below > -1e-12).all()
    assert below.max() > 1e-5
    assert (found.change[~found.converged] > 1e-9).all()
    # Left to run, it converges.
    longer = of_chain(chain, k=3)
    np.testing.assert_allclose(longer.log_singular_values, exact, atol=1e-8)
    assert longer.converged.all()
    assert longer.sweeps > 4


@pytest.mark.float64
def test_sweeps_end_sooner_for_a_wider_tolerance():
    chain = systems.gaussian_chain(1, 40, 5)
    sweeps = [int(of_chain(chain, k=3, tol=tol).sweeps) for tol in (1e-3, 1e-6, 1e-9)]
    assert sweeps == sorted(set(sweeps))


def test_annihilated_directions_read_minus_infinity(dtype):
    W = jnp.diag(jnp.asarray([2.0, 0.5, 0.0, 0.0], dtype))
    W = W.at[0, 1].set(3.0)
    step = steps.from_function(lambda W, h, x: (W @ h, x), W)
    found = spectra.leading_spectrum(step, jnp.zeros(4, dtype), k=4, length=20)
    assert np.isneginf(found.log_singular_values).tolist() == [False] * 2 + [True] * 2
    assert found.converged.all()
    exact = vgjax.theory.power_spectrum(W, [20]).log_singular_values[0]
    np.testing.assert_allclose(found.log_singular_values[:2], exact[:2], rtol=1e-5)


@pytest.mark.float64
def test_directions_beyond_the_rank_of_dense_factors_read_minus_infinity():
    rng = np.random.default_rng(0)
    chain = rng.standard_normal((20, 30, 3)) @ rng.standard_normal((20, 3, 30))
    found = of_chain(chain, k=5)
    exact = vgjax.products.product_spectrum(jnp.asarray(chain), every=20)
    exact = exact.log_singular_values[0, :3]
    np.testing.assert_allclose(found.log_singular_values[:3], exact, atol=1e-8)
    assert np.isneginf(found.log_singular_values[3:]).all()
    assert found.converged.all()


@pytest.mark.float64
def test_a_nan_in_a_jacobian_is_nan_and_not_converged():
    # With a block that is all there is, and with one that is not.
    for N, sweeps in [(4, 0), (12, 1)]:
        chain = systems.gaussian_chain(1, N, 9)
        chain[5, 2, 1] = np.nan
        with pytest.warns(RuntimeWarning, match="All 2 leading .* are NaN"):
            found = of_chain(chain, k=2)
        assert np.isnan(found.log_singular_values).all()
        assert found.sweeps == sweeps


@pytest.mark.float64
def test_same_values_under_jit_and_vmap():
    _, h, x = network(N=12, T=20)

    @jax.jit
    @jax.vmap
    def measure(gain):
        step = steps.from_function(tanh_cell, gain * jnp.eye(12) + 0.1)
        return spectra.leading_spectrum(step, h, x, k=2).log_singular_values

    together = measure(jnp.asarray([0.5, 1.0, 2.0]))
    for gain, values in zip([0.5, 1.0, 2.0], together, strict=True):
        step = steps.from_function(tanh_cell, gain * jnp.eye(12) + 0.1)
        exact = np.linalg.svd(vgjax.propagator(step, h, x), compute_uv=False)
        np.testing.assert_allclose(values, np.log(exact[:2]), atol=1e-8)


@pytest.mark.float64
def test_a_block_that_is_all_there_is_loses_no_digits_of_a_nonnormal_product():
    chain = np.broadcast_to(0.5 * np.eye(10) + 10 * np.eye(10, k=1), (30, 10, 10))
    (exact,) = oracles.log_singular_values(chain, (30,), 300).values()
    found = of_chain(chain, k=2)
    np.testing.assert_allclose(found.log_singular_values, exact[:2], atol=1e-10)
    assert found.converged.all()


@pytest.mark.float64
def test_nearly_equal_values_converge_at_the_root_of_their_gap():
    N, k, spacing = 200, 2, 2e-3
    rates = spacing * jnp.arange(N, dtype=float)
    step = steps.from_function(lambda d, h, x: (jnp.exp(-d) * h, x), rates)
    found = spectra.leading_spectrum(step, jnp.ones(N), k=k, length=1)
    np.testing.assert_allclose(found.log_singular_values, -rates[:k], atol=1e-9, rtol=0)
    assert found.converged.all()
    # Subspace iteration alone: e^-4g a sweep, g to the first value left out.
    g = (k + 8 - 1) * spacing
    assert int(found.sweeps) < np.log(1e9) / (4 * g) / 6


@pytest.mark.float64
def test_a_nonnormal_product_that_loses_digits_says_so():
    chain = np.broadcast_to(0.5 * np.eye(12) + 10 * np.eye(12, k=1), (30, 12, 12))
    (exact,) = oracles.log_singular_values(chain, (30,), 300).values()
    with pytest.warns(RuntimeWarning, match="jacobian_spectrum"):
        found = of_chain(chain, k=3, max_sweeps=12)
    off = np.abs(found.log_singular_values - exact[:3])
    assert off[2] > 1e-5
    assert not found.converged[2]
    assert (found.error > 0.1 * off).all()
    kept = vgjax.products.product_spectrum(jnp.asarray(chain), every=30)
    kept = kept.log_singular_values[0, :3]
    np.testing.assert_allclose(kept, exact[:3], atol=1e-10)


def outlier(direction, h, x):
    """Shrinks by e each step, and along one direction by a little less."""
    n, excess = direction
    return (h + excess * n * jnp.dot(n, h)) / jnp.e, x


def test_a_value_that_begins_to_move_only_after_many_sweeps_is_waited_for():
    # In float32, where the first changes are below what values of -100 can show.
    n = np.random.default_rng(1).standard_normal(512)
    n = jnp.asarray(n / np.linalg.norm(n), jnp.float32)
    step = steps.from_function(outlier, (n, jnp.float32(np.expm1(1 / 100))))
    found = spectra.leading_spectrum(step, jnp.zeros_like(n), k=1, length=100)
    assert abs(found.log_singular_values[0] + 99) < 0.01
    assert found.sweeps > 3


@pytest.mark.float64
def test_a_slow_value_far_below_the_largest_keeps_its_digits():
    # In a space of blocks, where one scale serves all, it would be buried.
    rates = np.concatenate([[0, 10, 20], 30 + 0.03 * np.arange(57)])
    step = steps.from_function(lambda d, h, x: (jnp.exp(-d) * h, x), jnp.asarray(rates))
    found = spectra.leading_spectrum(step, jnp.ones(60), k=4, length=1)
    np.testing.assert_allclose(found.log_singular_values, -rates[:4], atol=1e-9, rtol=0)
    assert found.converged.all()


@pytest.mark.float64
@pytest.mark.parametrize("g", [1e-6, 1e-5])
def test_small_changes_that_grow_are_not_taken_for_an_end(g):
    n = np.random.default_rng(1).standard_normal(200)
    step = steps.from_function(
        outlier, (jnp.asarray(n / np.linalg.norm(n)), np.expm1(g))
    )
    found = spectra.leading_spectrum(step, jnp.zeros(200), k=1, length=1)
    # After two sweeps 99 % of it is missed, and the change is below 1e-11.
    np.testing.assert_allclose(found.log_singular_values, g - 1, atol=1e-9)
    assert found.converged.all()
    assert found.change[0] > 1e-11


@pytest.mark.float64
@pytest.mark.parametrize("width", [1e-6, 3e-5])
def test_a_cluster_beside_a_gap_is_not_taken_for_one_value(width):
    # What the gap brings is over at once, and hides that the cluster has only begun.
    d = [-width * np.linspace(0, 1, 100), -4 - np.random.default_rng(0).random(100)]
    step = steps.from_function(
        lambda d, h, x: (jnp.exp(d) * h, x), jnp.asarray(np.concatenate(d))
    )
    found = spectra.leading_spectrum(step, jnp.ones(200), k=1, length=1)
    np.testing.assert_allclose(found.log_singular_values, 0, atol=1e-9)
    assert found.converged.all()


@pytest.mark.float64
def test_round_off_of_a_long_product_does_not_keep_sweeps_going():
    step, h, x = network(N=40, T=200, gain=2.5)
    found = spectra.leading_spectrum(step, h, x, k=20)
    exact = vgjax.jacobian_spectrum(step, h, x, every=200).log_singular_values[0]
    np.testing.assert_allclose(found.log_singular_values, exact[:20], atol=1e-9)
    assert found.converged.all()
    assert found.sweeps < 6


def scaling(h, x):
    return jnp.exp(x) * h, None


@pytest.mark.float64
@pytest.mark.parametrize(("down", "up", "T"), [(20, 30, 10), (2, 4, 100)])
def test_what_overtakes_from_below_round_off_does_not_converge(down, up, T):
    # Found hundreds of nats too large, and the same sweep after sweep, in coordinates
    # that mix what does not feed each other.
    x = np.full((2 * T, 12), -0.1) * np.arange(12)
    x[:T, 0], x[T:, 0] = -down, up
    Q = jnp.asarray(systems.orthogonal(np.random.default_rng(3), 12))

    def scaling_turned(h, x):
        return Q @ (jnp.exp(x) * (Q.T @ h)), None

    with pytest.warns(RuntimeWarning, match="1 of 1 leading .* (lost|not converged)"):
        found = spectra.leading_spectrum(
            scaling_turned, jnp.ones(12), jnp.asarray(x), k=1, max_sweeps=20
        )
    assert abs(found.log_singular_values[0] - (up - down) * T) > 1
    assert found.error[0] > 1
    # And in any order that can be told, it does.
    x[:T, 0] = 0.5
    found = spectra.leading_spectrum(scaling, jnp.ones(12), jnp.asarray(x), k=1)
    np.testing.assert_allclose(found.log_singular_values, (up + 0.5) * T, rtol=1e-12)
    assert found.converged.all()


@pytest.mark.float64
def test_nilpotent_product_has_no_values_and_no_change_at_the_end():
    A = np.broadcast_to(np.eye(12, k=1), (12, 12, 12))
    found = of_chain(A, k=2)
    assert np.isneginf(found.log_singular_values).all()
    assert found.converged.all()
    assert not found.change.any()


@pytest.mark.float64
def test_memory_is_of_a_few_blocks_and_no_jacobian_or_history():
    N, T, k = 2048, 400, 1

    def measure(d, x):
        step = steps.from_function(lambda d, h, x: (jnp.tanh(d * h + x), None), d)
        return spectra.leading_spectrum(step, d, x, k=k, length=T)

    given = [jax.ShapeDtypeStruct(shape, float) for shape in ((N,), (T, 1))]
    used = jax.jit(measure).lower(*given).compile().memory_analysis()
    block = 8 * N * (k + 8)
    states = 8 * N * 2 * T**0.5
    # (N, N) takes 33 MB, (T, N, k + 8) 59 MB, this 13 MB.
    assert used.temp_size_in_bytes < 80 * block + 4 * states


BAD = [
    ({"k": 0}, ValueError, "`k` must be at least 1 and at most 3, but is 0"),
    ({"k": 4}, ValueError, "`k` must be at least 1 and at most 3, but is 4"),
    ({"k": 1, "lag": 0}, ValueError, "`lag` must be at least 1 and at most 10"),
    ({"k": 1, "lag": 11}, ValueError, "`lag` must be .* at most 10, but is 11"),
    ({"k": 1, "tol": -1.0}, ValueError, "`tol` must be a number above 0, but is -1.0"),
    ({"k": 1, "max_sweeps": 0}, ValueError, "`max_sweeps` must be at least 1"),
    ({"k": 1, "max_sweeps": 2.5}, TypeError, "`max_sweeps` must be a whole number"),
    ({"k": 1, "checkpoint_every": 0}, ValueError, "`checkpoint_every` must be at leas"),
]


@pytest.mark.parametrize(("options", "error", "match"), BAD)
def test_wrong_options_are_refused_by_name(options, error, match):
    with pytest.raises(error, match=match):
        spectra.leading_spectrum(
            lambda h, _: (h, None), jnp.ones(3), length=10, **options
        )
