"""What a forward pass keeps for backward as plain arrays, for callers that can hand on nothing else.

`arrays_of` takes them out of a cache, `cache_of` makes a cache of them again. All are (T, B, width), and what is in a
column belongs to that sequence alone, so that a batch may be cut and joined in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _check, _settings
from fastrnn._cache import Cache
from fastrnn._compiled import _Kept, plan_of
from fastrnn._dense import DenseCache
from fastrnn._products import products

# How many times H each is wide, and whether backward writes into it. y is kept as well, by whoever called.
WIDTHS = {"rnn": (), "lstm": (1, 4), "gru": (1, 3)}
WRITTEN = {"rnn": (), "lstm": (False, True), "gru": (True, True)}
_PLAN, _PLACES = 2, {"rnn": (), "lstm": (8, 9), "gru": (7, 8)}


def arrays_of(cache: Cache) -> tuple[np.ndarray, ...]:
    """
    What the compiled engines' plain cells keep beside `y`; the cache is used up.

    Returns
    -------
    tuple of array (T, B, width)
        Of an RNN none, of an LSTM c and the gates (4H), of a GRU what meets the reset gate and the gates (3H).
    """
    kept = cache.take()
    if type(cache) is DenseCache:
        return kept[0].show()
    return tuple(kept[_PLAN].unpack(kept[place]) for place in _PLACES[cache.cell])


def cache_of(cell: str, inputs: _check.Inputs, y: np.ndarray, arrays: Sequence[np.ndarray], **options: Any) -> Cache:
    """
    The cache that the forward function of this cell has made, anew.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
    inputs : Inputs
        As forward had them.
    y, arrays
        What forward returned, and `arrays_of` its cache. Backward changes those of the arrays that are `WRITTEN`.
    **options
        ``reverse``, and the cell's own, ``nonlinearity`` or ``reset_after``.

    Returns
    -------
    Cache
        For the backward function. It shows no gates.
    """
    with_products, isa = products(), _settings.isa()
    plan = plan_of(inputs, options["reverse"])
    states = [plan.sort(state) for state in inputs.states]
    both = plan.states(states[0])
    plan.of_steps(both)[...] = plan.pack(y)
    start = (with_products, isa, plan, plan.pack(inputs.x), *states, both)
    end = (inputs.w_ih, inputs.w_hh, inputs.b_ih, inputs.b_hh)
    rows = [plan.pack(array) for array in arrays]
    if cell == "rnn":
        kept = (*start, *end, options["nonlinearity"] == "relu")
    else:
        kind = () if cell == "lstm" else ("gru-after" if options["reset_after"] else "gru-before",)
        kept = (*start, _Kept(plan, True, None), *rows, *kind, None, *end)
    return Cache(cell, with_products.engine, y.view(), *kept, gates=dict)
