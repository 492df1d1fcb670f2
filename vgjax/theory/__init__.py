"""What mathematics predicts, before anything is measured.

Nothing here knows a cell or a trajectory, so that theory beside measurement is a
comparison of two things.

| module | what is there |
| --- | --- |
| `eigenvalues` | of a matrix W and its powers: `eigenvalues`, `eigenvalue_rates`, |
| | `power_spectrum`, `mode_amplitudes` |
"""

from vgjax.theory.eigenvalues import eigenvalue_rates as eigenvalue_rates
from vgjax.theory.eigenvalues import eigenvalues as eigenvalues
from vgjax.theory.eigenvalues import mode_amplitudes as mode_amplitudes
from vgjax.theory.eigenvalues import power_spectrum as power_spectrum
