"""The difference of two local measurements, divided by what was changed between them."""

from collections.abc import Mapping

import numpy as np

from inmaterio.simulators.capabilities import Estimate, Outer


def contrast(after: Mapping[str, Estimate], before: Mapping[str, Estimate], *, scale: float) -> dict[str, Estimate]:
    """scale * (after - before) for each parameter, without forming a dense array of an outer product.

    Parameters
    ----------
    after, before : mapping
        dE/dtheta of two phases, of the same parameters and batch.
    scale : float

    Returns
    -------
    dict
        `Outer` where both were: over the same right-hand side (the clamped input) one outer product of the difference,
        otherwise one over both phases behind one another.
    """
    return {name: _difference(after[name], before[name], scale) for name in after}


def _difference(after: Estimate, before: Estimate, scale: float) -> Estimate:
    if not isinstance(after, Outer) or not isinstance(before, Outer):
        dense_after = after.dense() if isinstance(after, Outer) else after
        dense_before = before.dense() if isinstance(before, Outer) else before
        return np.asarray(scale * (dense_after - dense_before))
    if after.right is before.right and after.scale == before.scale:
        return Outer(after.left - before.left, after.right, scale * after.scale)
    # the mean over both phases has twice the rows
    left = np.concatenate([after.left, -(before.scale / after.scale) * before.left])
    return Outer(left, np.concatenate([after.right, before.right]), 2.0 * scale * after.scale)
