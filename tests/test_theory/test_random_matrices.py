import inspect

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from vgjax import theory

NEWMAN = [-0.065088, -0.141569, -0.231755, -0.341569]
NEWMAN += [-0.481755, -0.674902, -0.981755, -1.674902]


def test_newman_exponents_are_those_of_the_reference():
    found = theory.newman_exponents(8)
    np.testing.assert_allclose(found, NEWMAN, rtol=0, atol=6e-7)
    twice = theory.newman_exponents(8, gain=2.0)
    np.testing.assert_allclose(twice, found + np.log(2), rtol=1e-14)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_products_of_gaussian_matrices_grow_at_newmans_rates(seed):
    N, T, gain = 8, 4000, 1.3
    rng = np.random.default_rng(seed)
    Q, logs = np.eye(N), np.zeros((T, N))
    for t in range(T):
        J = gain * rng.standard_normal((N, N)) / np.sqrt(N)
        Q, R = np.linalg.qr(J @ Q)
        logs[t] = np.log(np.abs(np.diag(R)))
    error = theory.newman_standard_errors(N, T)
    z = (logs.mean(0) - theory.newman_exponents(N, gain=gain)) / error
    assert np.all(np.abs(z) < 4)
    # The standard error itself, to six of its own: kurtosis of log chi^2 below 9.
    ratio = logs.std(0) / np.sqrt(T) / error
    np.testing.assert_allclose(ratio, 1, atol=6 * np.sqrt(2 / T))


@pytest.mark.parametrize(
    ("layers", "edge"), [(1, 4), (2, 6.75), (4, 12.207), (16, 44.845), (64, 175.33)]
)
def test_the_edge_of_a_product_is_that_of_the_reference(layers, edge):
    np.testing.assert_allclose(theory.gaussian_product_edge(layers), edge, rtol=5e-5)


def test_the_edge_of_many_layers_grows_as_e():
    # (L + 1) (1 + 1/L)^L = e (L + 1/2) (1 + O(L^-2))
    for layers in (10**9, 10**17, 10**200):
        expected = np.e * (layers + 0.5)
        found = theory.gaussian_product_edge(layers)
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_the_edge_is_where_the_moments_grow_to():
    for layers in (1, 3):
        k = 4000
        ratio = [theory.gaussian_product_moments(layers, k + i) for i in (0, 1)]
        growth = ratio[1] / ratio[0]
        # m_k goes as edge^k / k^(3/2).
        expected = theory.gaussian_product_edge(layers) * (1 - 1.5 / k)
        np.testing.assert_allclose(growth, expected, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_moments_are_those_of_products_of_wide_layers(layers):
    N, samples = 400, 6
    rng = np.random.default_rng(layers)
    moments = []
    for _ in range(samples):
        product = np.eye(N)
        for _ in range(layers):
            product = rng.standard_normal((N, N)) @ product / np.sqrt(N)
        gram = product @ product.T
        moments.append([np.trace(gram) / N, (gram**2).sum() / N])
    error = np.std(moments, axis=0, ddof=1) / np.sqrt(samples)
    expected = [theory.gaussian_product_moments(layers, k) for k in (1, 2)]
    assert expected == [1, layers + 1]
    # Of order L^2 / N^2 for finite N: at most 4e-4.
    off = np.abs(np.mean(moments, axis=0) - expected)
    assert np.all(off < 4 * error + layers**2 / N**2 * np.array(expected))


def test_moments_are_fuss_catalan_numbers():
    assert [theory.gaussian_product_moments(1, k) for k in range(6)] == [
        1,
        1,
        2,
        5,
        14,
        42,
    ]
    assert [theory.gaussian_product_moments(2, k) for k in range(5)] == [
        1,
        1,
        3,
        12,
        55,
    ]


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_eigenvalues_of_a_wide_matrix_fill_the_disc_evenly(gain):
    N = 300
    W = gain * np.random.default_rng(1).standard_normal((N, N)) / np.sqrt(N)
    moduli = np.abs(np.linalg.eigvals(W))
    radii = gain * np.array([0.3, 0.6, 0.9])
    found = (moduli[None, :] < radii[:, None]).mean(1)
    # Counts fluctuate less than independent ones: six of these are generous.
    expected = theory.circular_law(radii, gain)
    bound = 6 * np.sqrt(expected * (1 - expected) / N)
    assert np.all(np.abs(found - expected) < bound)
    np.testing.assert_allclose(expected, [0.09, 0.36, 0.81], rtol=1e-14)
    assert theory.circular_law(3 * gain, gain) == 1
    assert type(theory.circular_law(0.1)) is float


@pytest.mark.parametrize(
    ("N", "linear", "relu"),
    [
        (25, 1.02047326, 1.49229217),
        (100, 1.00502927, 1.43230357),
        (500, 1.00100117, 1.41776517),
    ],
)
def test_random_walk_gains_are_those_of_the_reference(N, linear, relu):
    assert abs(theory.random_walk_gain(N, "linear") - linear) < 6e-9
    assert abs(theory.random_walk_gain(N, "relu") - relu) < 6e-9


@pytest.mark.parametrize("N", [2, 5, 8])
def test_at_the_random_walk_gain_the_logarithm_of_the_norm_has_no_drift(N):
    # One layer applied to a unit vector: W v has independent N(0, g^2/N) entries.
    a = np.random.default_rng(N).standard_normal((200_000, N)) / N**0.5
    for activation, h in [("linear", a), ("relu", np.maximum(a, 0))]:
        norms = np.linalg.norm(h, axis=1)
        steps = np.log(norms[norms > 0] * theory.random_walk_gain(N, activation))
        assert abs(steps.mean()) < 5 * steps.std() / len(steps) ** 0.5
        with_linear = np.log(theory.random_walk_gain(N, "linear"))
        if activation == "relu":  # and another gain has one
            shift = with_linear - np.log(theory.random_walk_gain(N, "relu"))
            assert abs(steps.mean() + shift) > 50 * steps.std() / len(steps) ** 0.5


@pytest.mark.parametrize(
    ("N", "activation", "match"),
    [
        (0, "relu", "`N` must be at least 1"),
        (3, "tanh", "`activation` must be one of 'linear', 'relu', but is 'tanh'"),
    ],
)
def test_a_wrong_random_walk_is_refused(N, activation, match):
    with pytest.raises(ValueError, match=match):
        theory.random_walk_gain(N, activation)


@pytest.mark.parametrize(
    ("name", "expected"), [("linear", 0.020201), ("relu", 0.051940)]
)
def test_the_variance_of_the_random_walk_is_that_of_the_reference(name, expected):
    found = theory.random_walk_variance(100, name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)


@pytest.mark.parametrize("name", ["linear", "relu"])
@pytest.mark.parametrize("N", [1, 5, 40])
def test_the_random_walk_wanders_as_predicted(name, N):
    samples = 200_000
    rng = np.random.default_rng(N)
    on = np.full(samples, N)
    if name == "relu":
        on = rng.binomial(N, 0.5, samples)
        on = on[on > 0]
    logs = np.log(rng.chisquare(on))
    centred = (logs - logs.mean()) ** 2
    error = centred.std() / np.sqrt(len(logs))
    assert abs(centred.mean() - theory.random_walk_variance(N, name)) < 4 * error


@pytest.mark.parametrize("N", [5, 2000])
def test_the_variance_of_relu_is_the_law_of_total_variance(N):
    K = np.arange(1, N + 1)
    chance = stats.binom.pmf(K, N, 0.5) / (1 - 0.5**N)
    mean = chance @ digamma(K / 2)
    expected = chance @ (polygamma(1, K / 2) + digamma(K / 2) ** 2) - mean**2
    found = theory.random_walk_variance(N, "relu")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "match"),
    [
        ("circular_law", (-1.0,), ValueError, "`radius` must be finite"),
        ("circular_law", (1.0, 0.0), ValueError, "`gain` must be a number above 0"),
        ("newman_exponents", (0,), ValueError, "`N` must be at least 1"),
        ("newman_standard_errors", (3, 0), ValueError, "`steps` must be at least 1"),
        ("gaussian_product_edge", (1.5,), TypeError, "`layers` must be a whole number"),
        ("gaussian_product_moments", (1, -1), ValueError, "`order` must be at least 0"),
        (
            "random_walk_variance",
            (3, "tanh"),
            ValueError,
            "`activation` must be one of",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(name, arguments, error, match):
    with pytest.raises(error, match=match):
        inspect.unwrap(getattr(theory, name))(*arguments)
