import matplotlib.pyplot as plt
import numpy as np
from support.pictures import legend_of

import vgjax.plots as plots


def test_eigenvalues_are_drawn_in_the_plane_with_both_circles():
    W = np.array([[0.0, -1.5, 0.0], [1.5, 0.0, 0.0], [0.0, 0.0, 0.5]])
    ax = plots.eigenvalues(W)
    unit, radius, dots = ax.lines
    found = sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True))
    np.testing.assert_allclose(found, [(0, -1.5), (0, 1.5), (0.5, 0)], atol=1e-6)
    np.testing.assert_allclose(np.hypot(*unit.get_data()), 1, rtol=1e-12)
    np.testing.assert_allclose(np.hypot(*radius.get_data()), 1.5, rtol=1e-6)
    assert unit.get_linestyle() != radius.get_linestyle()
    assert ax.get_aspect() == 1
    assert "spectral radius 1.5" in legend_of(ax)


def test_a_batch_has_all_eigenvalues_and_the_ring_of_its_radii():
    W = np.stack([np.diag([1.0, 0.5]), np.diag([-1.4, 0.3])])
    ax = plots.eigenvalues(W)
    _, radius, dots = ax.lines
    found = sorted(dots.get_xdata())
    np.testing.assert_allclose(found, [-1.4, 0.3, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(np.hypot(*radius.get_data()), 1.2, rtol=1e-6)
    (ring,) = ax.patches
    spread = np.std([1.0, 1.4], ddof=1)
    distance = np.hypot(*ring.get_xy().T)
    np.testing.assert_allclose(
        [distance.min(), distance.max()], [1.2 - spread, 1.2 + spread], rtol=1e-6
    )
    assert "spectral radius 1.2 ± 0.28\n(mean ± SD of 2)" in legend_of(ax)


def test_no_eigenvalue_is_cut_off_where_the_legend_makes_room():
    figure, axes = plt.subplots(2, 3, layout="constrained")
    ax = plots.eigenvalues(1.3 * np.eye(2) + np.array([[0, 1], [-1, 0]]), ax=axes[0, 0])
    figure.canvas.draw()
    (low, high), (left, right) = ax.get_ylim(), ax.get_xlim()
    assert low < -1.6 < 1.6 < high
    assert left < -1.6 < 1.6 < right
