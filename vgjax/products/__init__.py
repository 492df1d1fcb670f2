"""Exact singular values of long products of matrices.

| module | what is there |
| --- | --- |
| `graded` | `GradedProduct`: a product whose scales are integers; `identity`, `push` |
| `singular` | `log_singular_values`, `log_svd` of one product |
| `spectrum` | `product_spectrum`: of every prefix or suffix of a sequence |
| `certified` | `certified_spectrum`: the same with a proof, in ball arithmetic |
| `laws` | `check_laws`, `violations`: Horn's and Weyl's, which any spectrum obeys |
| `perturbed` | `sensitivity`: how far the rounding of the factors moves the values |
"""

from vgjax.products.certified import CertifiedSpectrum, certified_spectrum
from vgjax.products.graded import GradedProduct, identity, multiply, push
from vgjax.products.laws import Laws, check_laws, violations
from vgjax.products.perturbed import sensitivity
from vgjax.products.singular import LogSVD, log_singular_values, log_svd
from vgjax.products.spectrum import Spectrum, product_spectrum

__all__ = [
    "CertifiedSpectrum",
    "GradedProduct",
    "Laws",
    "LogSVD",
    "Spectrum",
    "certified_spectrum",
    "check_laws",
    "identity",
    "log_singular_values",
    "log_svd",
    "multiply",
    "product_spectrum",
    "push",
    "sensitivity",
    "violations",
]


def __dir__() -> list[str]:
    return __all__
