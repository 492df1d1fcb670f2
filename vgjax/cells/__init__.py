"""Steps: the zoo of Flax cells, and what other libraries call a cell.

A cell of Flax nnx is a step as it stands. Others are wrapped:

| from | by |
| --- | --- |
| Flax linen module and its variables | `from_linen` |
| Equinox cell, ``cell(x, carry)`` | `from_equinox` |
| plain function of parameters, ``fn(params, carry, x)`` | `from_function` |
| any of these, with derivatives exact in saturation | `exact` |

The zoo has the remedies for vanishing and exploding gradients: `build` makes them by
name, `names` lists the names, `options` what each can be told.

| kind | classes |
| --- | --- |
| one matrix | `Recurrent`, `Residual`, `Antisymmetric` |
| on the unit circle | `Cayley`, `Expm`, `LRU` |
| many time scales | `Leaky`, `Skip`, `Dilated`, `Clockwork` |
| gates | `GRU`, `MGU`, `MinimalRNN`, `LSTM`, `ChronoLSTM` |
| normalisation | `LayerNormRNN`, `LayerNormGRU`, `LayerNormLSTM`, `BatchNormRNN`, `BatchNormLSTM` |
| depth as time | `Layers`, `SharedLayers` of `Dense`, `ResidualDense`, `BatchNormDense`, `LayerNormDense`, `TransformerBlock` |
| attention | `CausalAttention` |

All are PyTrees whose leaves are the weights: new weights of the same shapes run the
program that is already compiled. The first touch of one loads Flax.
"""  # noqa: E501

from typing import TYPE_CHECKING, Any

from vgjax.cells import _zoo
from vgjax.cells._adapters import from_equinox as from_equinox
from vgjax.cells._adapters import from_function as from_function
from vgjax.cells._adapters import from_linen as from_linen
from vgjax.cells._exact import exact as exact
from vgjax.cells._zoo import build as build
from vgjax.cells._zoo import is_over_depth as is_over_depth
from vgjax.cells._zoo import names as names
from vgjax.cells._zoo import options as options

if TYPE_CHECKING:
    from vgjax.cells._attention import CausalAttention as CausalAttention
    from vgjax.cells._depth import BatchNormDense as BatchNormDense
    from vgjax.cells._depth import Dense as Dense
    from vgjax.cells._depth import LayerNormDense as LayerNormDense
    from vgjax.cells._depth import Layers as Layers
    from vgjax.cells._depth import ResidualDense as ResidualDense
    from vgjax.cells._depth import SharedLayers as SharedLayers
    from vgjax.cells._depth import TransformerBlock as TransformerBlock
    from vgjax.cells._gated import GRU as GRU
    from vgjax.cells._gated import LSTM as LSTM
    from vgjax.cells._gated import MGU as MGU
    from vgjax.cells._gated import ChronoLSTM as ChronoLSTM
    from vgjax.cells._gated import MinimalRNN as MinimalRNN
    from vgjax.cells._normalised import BatchNormLSTM as BatchNormLSTM
    from vgjax.cells._normalised import BatchNormRNN as BatchNormRNN
    from vgjax.cells._normalised import LayerNormGRU as LayerNormGRU
    from vgjax.cells._normalised import LayerNormLSTM as LayerNormLSTM
    from vgjax.cells._normalised import LayerNormRNN as LayerNormRNN
    from vgjax.cells._plain import Antisymmetric as Antisymmetric
    from vgjax.cells._plain import Recurrent as Recurrent
    from vgjax.cells._plain import Residual as Residual
    from vgjax.cells._timescales import Clockwork as Clockwork
    from vgjax.cells._timescales import Dilated as Dilated
    from vgjax.cells._timescales import Leaky as Leaky
    from vgjax.cells._timescales import Skip as Skip
    from vgjax.cells._unitary import LRU as LRU
    from vgjax.cells._unitary import Cayley as Cayley
    from vgjax.cells._unitary import Expm as Expm

_CLASSES = frozenset(name for classes in _zoo.HOMES.values() for name in classes)


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return _zoo.find_class(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
