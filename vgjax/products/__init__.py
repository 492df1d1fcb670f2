"""Exact singular values of long products of matrices.

| module | what is there |
| --- | --- |
| `graded` | `GradedProduct`: a product whose scales are integers; `identity`, `push` |
| `singular` | `log_singular_values`, `log_svd` of one product |
| `spectrum` | `product_spectrum`: of every prefix or suffix of a sequence |
| `certified` | `certified_spectrum`: the same with a proof, in ball arithmetic |
| `perturbed` | `sensitivity`: how far the rounding of the factors moves the values |
"""

from vgjax.products.certified import CertifiedSpectrum as CertifiedSpectrum
from vgjax.products.certified import certified_spectrum as certified_spectrum
from vgjax.products.graded import GradedProduct as GradedProduct
from vgjax.products.graded import identity as identity
from vgjax.products.graded import multiply as multiply
from vgjax.products.graded import push as push
from vgjax.products.perturbed import sensitivity as sensitivity
from vgjax.products.singular import LogSVD as LogSVD
from vgjax.products.singular import log_singular_values as log_singular_values
from vgjax.products.singular import log_svd as log_svd
from vgjax.products.spectrum import Spectrum as Spectrum
from vgjax.products.spectrum import product_spectrum as product_spectrum
