"""What a cost may really be: a Monte-Carlo sample of it, and the points by which a sample is reported.

Costs from one source err together: one standard normal deviate per source and draw serves all its rows, and it depends on
nothing but seed and source, so that two estimates share their draws and can be compared draw by draw.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from inmaterio.devices.costs import Cost
from inmaterio.devices.randomness import Key


class Quantiles(NamedTuple):
    """10, 50 and 90 % points, in J unless a function says otherwise."""

    P10: float
    P50: float
    P90: float


def quantiles(draws: ArrayLike) -> Quantiles:
    """10, 50 and 90 % points of a sample."""
    low, middle, high = np.quantile(np.asarray(draws, dtype=np.float64), (0.1, 0.5, 0.9))
    return Quantiles(float(low), float(middle), float(high))


def cost_draws(cost: Cost, draws: int, seed: int) -> NDArray[np.float64]:
    """A Monte-Carlo sample of one cost, shape (draws,), in its unit; rows of one source move together."""
    return cost.at(_deviates(cost.source, draws, seed))


@lru_cache(maxsize=512)
def _deviates(source: str, draws: int, seed: int) -> NDArray[np.float64]:
    """Standard normal deviates of a source, shape (draws,).

    The midpoints of equal slices of probability, in the source's own random order (a Latin hypercube): quantiles of a
    single cost come out exact to the width of a slice, and different sources stay independent.
    """
    order = Key(seed, ("cost", source)).generator().permutation(draws)
    deviates: NDArray[np.float64] = ndtri((order + 0.5) / draws)
    deviates.flags.writeable = False
    return deviates
