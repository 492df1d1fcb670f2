"""Lyapunov exponents and vectors, and leading spectra without any Jacobian.

| module | what is there |
| --- | --- |
| `exponents` | `lyapunov_spectrum`, `kaplan_yorke_dimension`, `entropy` |
| `leading` | `leading_spectrum` |
| `covariant` | `covariant_vectors` |
"""

from vgjax.lyapunov.covariant import CovariantVectors as CovariantVectors
from vgjax.lyapunov.covariant import covariant_vectors as covariant_vectors
from vgjax.lyapunov.exponents import Lyapunov as Lyapunov
from vgjax.lyapunov.exponents import entropy as entropy
from vgjax.lyapunov.exponents import kaplan_yorke_dimension as kaplan_yorke_dimension
from vgjax.lyapunov.exponents import lyapunov_spectrum as lyapunov_spectrum
from vgjax.lyapunov.leading import LeadingSpectrum as LeadingSpectrum
from vgjax.lyapunov.leading import leading_spectrum as leading_spectrum
