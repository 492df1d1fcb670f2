"""What mathematics predicts, before anything is measured.

Nothing here knows a cell or a trajectory, so that theory beside measurement is a
comparison of two things.

| module | what is there |
| --- | --- |
| `eigenvalues` | of a matrix W and its powers: `eigenvalues`, `eigenvalue_rates`, |
| | `power_spectrum`, `mode_amplitudes` |
| `powers` | the power method: `power_method_rate`, `power_method_angles`, |
| | `principal_left_space`, `gelfand_rates`, `eigenvector_condition` |
| `nonnormality` | growth beyond eigenvalues: `henrici_departure`, `numerical_radius`, |
| | `pseudospectral_radius`, `kreiss_constant`, `transient_growth` |
| `memory` | of a linear network for its input: `fisher_memory` |
| `bounds` | of gradients: `slope_bound`, `vanishing_gain`, `pascanu_bound`, |
| | `must_vanish`, `can_explode` |
| `mean_field` | of a wide random network: `variance_map`, `fixed_point`, `chi`, |
| | `depth_scales`, `critical_gain`, `leading_exponent` |
| `wide_networks` | all their Lyapunov exponents: `lyapunov_density` |
| `random_matrices` | `circular_law`, `newman_exponents`, `newman_standard_errors`, |
| | `gaussian_product_edge`, `gaussian_product_moments`, `random_walk_gain`, |
| | `random_walk_variance` |

`eigenvalues`, `powers`, `bounds` and `henrici_departure` run under `jit` and
`vmap`. The rest runs on the host in float64, on concrete arguments.
"""

from vgjax.theory.bounds import (
    can_explode,
    must_vanish,
    pascanu_bound,
    slope_bound,
    vanishing_gain,
)
from vgjax.theory.eigenvalues import (
    eigenvalue_rates,
    eigenvalues,
    mode_amplitudes,
    power_spectrum,
)
from vgjax.theory.mean_field import (
    DepthScales,
    chi,
    critical_gain,
    depth_scales,
    fixed_point,
    leading_exponent,
    variance_map,
)
from vgjax.theory.memory import fisher_memory
from vgjax.theory.nonnormality import (
    TransientGrowth,
    henrici_departure,
    kreiss_constant,
    numerical_radius,
    pseudospectral_radius,
    transient_growth,
)
from vgjax.theory.powers import (
    eigenvector_condition,
    gelfand_rates,
    power_method_angles,
    power_method_rate,
    principal_left_space,
)
from vgjax.theory.random_matrices import (
    circular_law,
    gaussian_product_edge,
    gaussian_product_moments,
    newman_exponents,
    newman_standard_errors,
    random_walk_gain,
    random_walk_variance,
)
from vgjax.theory.wide_networks import lyapunov_density

__all__ = [
    "DepthScales",
    "TransientGrowth",
    "can_explode",
    "chi",
    "circular_law",
    "critical_gain",
    "depth_scales",
    "eigenvalue_rates",
    "eigenvalues",
    "eigenvector_condition",
    "fisher_memory",
    "fixed_point",
    "gaussian_product_edge",
    "gaussian_product_moments",
    "gelfand_rates",
    "henrici_departure",
    "kreiss_constant",
    "leading_exponent",
    "lyapunov_density",
    "mode_amplitudes",
    "must_vanish",
    "newman_exponents",
    "newman_standard_errors",
    "numerical_radius",
    "pascanu_bound",
    "power_method_angles",
    "power_method_rate",
    "power_spectrum",
    "principal_left_space",
    "pseudospectral_radius",
    "random_walk_gain",
    "random_walk_variance",
    "slope_bound",
    "transient_growth",
    "vanishing_gain",
    "variance_map",
]


def __dir__() -> list[str]:
    return __all__
