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
