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
| `laws` | that any spectrum obeys, Horn's and Weyl's: `check_laws`, `violations` |
| `mean_field` | of a wide random network: `variance_map`, `fixed_point`, `chi`, |
| | `depth_scales`, `critical_gain`, `leading_exponent` |
| `wide_networks` | all their Lyapunov exponents: `lyapunov_density` |
| `random_matrices` | `circular_law`, `newman_exponents`, `newman_standard_errors`, |
| | `gaussian_product_edge`, `gaussian_product_moments`, `random_walk_gain`, |
| | `random_walk_variance` |

`eigenvalues`, `powers`, `bounds`, `laws` and `henrici_departure` run under `jit` and
`vmap`. The rest runs on the host in float64, on concrete arguments.
"""

from vgjax.theory.bounds import can_explode as can_explode
from vgjax.theory.bounds import must_vanish as must_vanish
from vgjax.theory.bounds import pascanu_bound as pascanu_bound
from vgjax.theory.bounds import slope_bound as slope_bound
from vgjax.theory.bounds import vanishing_gain as vanishing_gain
from vgjax.theory.eigenvalues import eigenvalue_rates as eigenvalue_rates
from vgjax.theory.eigenvalues import eigenvalues as eigenvalues
from vgjax.theory.eigenvalues import mode_amplitudes as mode_amplitudes
from vgjax.theory.eigenvalues import power_spectrum as power_spectrum
from vgjax.theory.laws import Laws as Laws
from vgjax.theory.laws import check_laws as check_laws
from vgjax.theory.laws import violations as violations
from vgjax.theory.mean_field import DepthScales as DepthScales
from vgjax.theory.mean_field import chi as chi
from vgjax.theory.mean_field import critical_gain as critical_gain
from vgjax.theory.mean_field import depth_scales as depth_scales
from vgjax.theory.mean_field import fixed_point as fixed_point
from vgjax.theory.mean_field import leading_exponent as leading_exponent
from vgjax.theory.mean_field import variance_map as variance_map
from vgjax.theory.memory import fisher_memory as fisher_memory
from vgjax.theory.nonnormality import TransientGrowth as TransientGrowth
from vgjax.theory.nonnormality import henrici_departure as henrici_departure
from vgjax.theory.nonnormality import kreiss_constant as kreiss_constant
from vgjax.theory.nonnormality import numerical_radius as numerical_radius
from vgjax.theory.nonnormality import pseudospectral_radius as pseudospectral_radius
from vgjax.theory.nonnormality import transient_growth as transient_growth
from vgjax.theory.powers import eigenvector_condition as eigenvector_condition
from vgjax.theory.powers import gelfand_rates as gelfand_rates
from vgjax.theory.powers import power_method_angles as power_method_angles
from vgjax.theory.powers import power_method_rate as power_method_rate
from vgjax.theory.powers import principal_left_space as principal_left_space
from vgjax.theory.random_matrices import circular_law as circular_law
from vgjax.theory.random_matrices import gaussian_product_edge as gaussian_product_edge
from vgjax.theory.random_matrices import (
    gaussian_product_moments as gaussian_product_moments,
)
from vgjax.theory.random_matrices import newman_exponents as newman_exponents
from vgjax.theory.random_matrices import (
    newman_standard_errors as newman_standard_errors,
)
from vgjax.theory.random_matrices import random_walk_gain as random_walk_gain
from vgjax.theory.random_matrices import random_walk_variance as random_walk_variance
from vgjax.theory.wide_networks import lyapunov_density as lyapunov_density
