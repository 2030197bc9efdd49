"""What rules on relaxing substrates have in common: the free prediction, and what they notice of their phases."""

from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import SETTLED, Batch, Diagnostics
from inmaterio.simulators.capabilities import Array, Samples, Settled
from inmaterio.simulators.fixed_point import loss_values


def predict_free(substrate: Any, inputs: Array, samples: Samples, key: Key, *, steps: int, tolerance: float | None) -> Array:
    """Outputs (batch, outputs) of a free settling; only they are read."""
    settled: Settled = substrate.settle(
        inputs, samples=samples, key=key.at("free"), steps=steps, tolerance=tolerance, read="outputs"
    )
    return settled.states[-1]


def diagnose(loss: str, batch: Batch, free: Settled, *others: Settled) -> Diagnostics:
    """Loss, outputs and states of the free phase, largest residual of all phases, fraction of samples unsettled in any."""
    outputs, worst = free.states[-1], free.residual
    for settled in others:
        worst = np.maximum(worst, settled.residual)
    losses = loss_values(outputs, batch.targets, loss)
    # sums and counts: on a small batch the overhead of np.mean is felt beside a settling
    return Diagnostics(
        float(losses.sum()) / losses.size,
        outputs,
        float(worst.max()),
        np.count_nonzero(worst > SETTLED) / worst.size,
        free.states,
    )
