"""How many threads work on a job, and how they divide it: the cost model.

Four ways of sharing a pass through a stack of layers. None of them changes a bit of the result.

`rows`        each thread has its own sequences. Nobody waits for another, and whoever comes late still takes a part.
`units`       each thread has its own hidden units, and so its own part of the weights in its own cache; all meet after
              every step. For few sequences, and for weights that one core's cache does not hold.
`directions`  one direction each.
`layers`      each thread has its own layers and follows the one below, a block of steps behind. For few sequences of
              small layers, whose steps are too short to meet after.

Work is counted in multiplications, for that does not depend on the machine; the constants were measured on Zen 5
(AVX-512). A slower machine takes longer for the same work, and gains more by sharing it. How long a job waits for
threads to come, where they have to meet, is a twentieth of what it would take alone, so whoever comes late costs no
more than that (csrc/team.h); for that, and for whether it pays to wake them, counts what `RATES` says of the
instruction set.
"""

from __future__ import annotations

from typing import NamedTuple

from fastrnn import _settings
from fastrnn._core.team import cpus


class Sharing(NamedTuple):
    """At most so many threads, how, and how many nanoseconds to wait for them."""

    members: int
    way: str
    patience: int

    @property
    def by_units(self) -> bool:
        """Whether threads meet after every step."""
        return self.members > 1 and self.way == "units"


ALONE = Sharing(1, "rows", 0)

LEAST = 500_000  # multiplications of a thread's part: 4 to 10 us, where handing over takes 0.3 us to a team awake
# Those of few sequences count for so many, for they take as much longer (RATES). A single step of an RNN, I=256 H=512,
# whose weights are in the last cache, takes 21.7 us alone and 13.9 on two cores of a Zen 4.
OF_FEW = 3
CPUS = cpus()  # of the process as it began: a caller that keeps to one CPU may still have help on the others
SCANNED = 32  # multiplications that take as long as one gate of an element-by-element recurrence, its sigmoid included
ROWS = 4  # a thread takes no fewer sequences: with less, its tiles (csrc/product_impl.h) read the weights for too few
# A step's multiplications from which halving it is worth a meeting, which takes 0.05 to 0.2 us and leaves h in the
# other core's cache: 0.8 us of one sequence.
MEETING = 40_000
# Bytes of weights up to which each core reads them all, or more of them for enough sequences: what is gained by halving
# them is lost by meeting. On a Xeon, ms by rows and by units: LSTM, T=50 B=32 I=128 H=256, 1 MB: 5.1, 6.0; T=25, B=32,
# H=512, 4 MB: 18.7, 13.6; B=64 25.3, 26.3; H=1024, 16 MB: B=32 56, 55, B=64 106, 107.
OWN_CACHE = 2 * 1024 * 1024
ROWS_FOR_ALL = 32  # of each thread
BLOCKS = 8  # of steps at least, for layers to follow one another
# Multiplications a nanosecond of a fast core, of many sequences and of one, whose weights are read from a cache for it
# alone. With those of AVX-512 for a Zen 3 (AVX2) jobs of up to 3 ms did not wake their helpers.
RATES = {"avx512": (130, 50), "avx2": (60, 25), "neon": (50, 25), "baseline": (25, 12)}


def _few(batch: int, members: int) -> bool:
    return batch < ROWS * members


def threads() -> int:
    """How many threads a job may have: no more than CPUs, for members that take turns on one wait for each other."""
    return min(_settings.get_num_threads(), CPUS)


def _patience(multiplications: int, batch: int) -> int:
    many, one = RATES[_settings.isa()]
    return multiplications // (20 * (many if batch >= ROWS else one))


def independent(multiplications: int, parts: int, rows: int = ROWS) -> Sharing:
    """For a job of so many multiplications, with weights for `rows`, of `parts` which do not wait for each other."""
    work = multiplications if rows >= ROWS else multiplications * OF_FEW
    if work < 2 * LEAST:
        return ALONE  # the usual case of small work, whose time this is part of
    members = min(threads(), work // LEAST, parts)
    return Sharing(members, "rows", _patience(multiplications, rows)) if members > 1 else ALONE


def passing(
    steps: int, batch: int, step: int, itemsize: int, rest: int = 0, layers: int = 1, directions: int = 1
) -> Sharing:
    """
    For a pass through a stack of layers.

    Parameters
    ----------
    steps, batch : int
    step : int
        Elements of one layer's recurrent weights (of one direction): its multiplications at a step of one sequence.
    itemsize : int
        Bytes of an element.
    rest : int
        Elements of its input weights.
    layers, directions : int
    """
    whole = steps * batch * (step + rest) * layers * directions
    work = whole if batch >= ROWS else whole * OF_FEW
    if work < 2 * LEAST:
        return ALONE
    members = min(threads(), work // LEAST)
    if members < 2:
        return ALONE
    patience = _patience(whole, batch)
    if directions == 2 and members == 2:
        return Sharing(2, "directions", patience)
    by_units = batch * step >= MEETING * directions  # within a direction each has a share of the members
    enough = step * itemsize <= OWN_CACHE or batch >= ROWS_FOR_ALL * members
    if not _few(batch, members) and (enough or not by_units):
        return Sharing(members, "rows", patience)
    if by_units:
        return Sharing(members, "units", patience)
    if directions == 2:
        return Sharing(2, "directions", patience)
    if layers > 1 and steps >= BLOCKS:
        return Sharing(min(members, layers), "layers", patience)
    if batch >= 2 * ROWS:
        return Sharing(min(members, batch // ROWS), "rows", patience)
    return ALONE
