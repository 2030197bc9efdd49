"""How well a rule estimates the gradient: the cosine to the exact one, layer by layer, on a fixed batch.

The exact gradient comes from the substrate's oracle, which no rule ever sees. A probe is shown in the ledger under
`evaluate`, charged to nobody, and leaves the substrate as it was.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import Batch, Rule
from inmaterio.simulators.capabilities import Array, Estimate, Outer, Parameter

PROBE_ROWS = 100
"""Rows of the fixed batch: the first of the training rows."""


def layer_cosines(
    estimates: Mapping[str, Estimate], exact: Mapping[str, Array], parameters: Mapping[str, Parameter]
) -> dict[str, float | None]:
    """Cosine of two gradients per layer, over all parameters of the layer together.

    Parameters
    ----------
    estimates, exact : mapping
        Gradient of each parameter; parameters that one of them lacks are left out.
    parameters : mapping of str to Parameter
        Says which layer each parameter drives.

    Returns
    -------
    dict
        ``layer_1`` and so on; None where one of the two is zero.
    """
    layers: dict[str, list[tuple[Array, Array]]] = {}
    for name, about in parameters.items():
        if name in estimates and name in exact:
            estimate = estimates[name]
            dense = estimate.dense() if isinstance(estimate, Outer) else estimate
            pair = (np.ravel(dense).astype(np.complex128), np.ravel(exact[name]).astype(np.complex128))
            layers.setdefault(f"layer_{about.layer}", []).append(pair)
    cosines: dict[str, float | None] = {}
    for layer, together in layers.items():
        left, right = (np.concatenate(side) for side in zip(*together, strict=True))
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        # Real part: for complex parameters descent goes along the conjugate pairing.
        cosines[layer] = float(np.vdot(left, right).real) / norms if norms > 0 and np.isfinite(norms) else None
    return cosines


def probe(rule: Rule, state: Any, substrate: Any, batch: Batch, loss: str, key: Key) -> dict[str, float | None]:
    """Cosine per layer of what `rule` estimates now; empty when the rule gives no estimates or there is no exact gradient."""
    oracle = substrate.oracle()
    if not hasattr(oracle, "loss_gradient"):
        return {}
    before = substrate.snapshot()
    try:
        with substrate.ledger.phase("evaluate"):
            estimates = rule.update(state, batch, key).estimates
        if not estimates:
            return {}
        return layer_cosines(estimates, oracle.loss_gradient(batch.inputs, batch.targets, loss), substrate.parameters)
    finally:
        substrate.restore(before)
