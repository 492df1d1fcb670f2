"""Singular values of products of Jacobians over time, from a step.

| module | what is there |
| --- | --- |
| `exact` | `jacobian_spectrum`: all of them, each with its error |
| `leading` | `leading_spectrum`: the largest, without any Jacobian |
| `rates` | `growth_rates`: their slopes over steps |
"""

from vgjax.products import Spectrum
from vgjax.spectra.exact import jacobian_spectrum
from vgjax.spectra.leading import LeadingSpectrum, leading_spectrum
from vgjax.spectra.rates import Rates, growth_rates

__all__ = [
    "LeadingSpectrum",
    "Rates",
    "Spectrum",
    "growth_rates",
    "jacobian_spectrum",
    "leading_spectrum",
]


def __dir__() -> list[str]:
    return __all__
