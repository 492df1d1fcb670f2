"""Exact singular values of long products of matrices.

| module | what is there |
| --- | --- |
| `graded` | `GradedProduct`: a product whose scales are integers; `identity`, `push` |
| `singular` | `log_singular_values`, `log_svd` of one product |
| `spectrum` | `product_spectrum`: of every prefix or suffix of a sequence |
"""

from vgjax.products.graded import GradedProduct as GradedProduct
from vgjax.products.graded import identity as identity
from vgjax.products.graded import multiply as multiply
from vgjax.products.graded import push as push
from vgjax.products.singular import LogSVD as LogSVD
from vgjax.products.singular import log_singular_values as log_singular_values
from vgjax.products.singular import log_svd as log_svd
from vgjax.products.spectrum import Spectrum as Spectrum
from vgjax.products.spectrum import product_spectrum as product_spectrum
