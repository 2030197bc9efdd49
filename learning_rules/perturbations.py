"""What rules that perturb and compare losses have in common: sizes, signs, the loss of each sample, the host's count."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.simulators.capabilities import LOSSES, Array, Parameter, Port
from inmaterio.simulators.digital_twin import WORD_BYTES
from inmaterio.simulators.fixed_point import loss_values

Floats = NDArray[np.float64]

VARIANTS = ("two-sided", "one-sided")
"""Loss at +change against loss at -change, or against the loss without any."""


def check_loss(loss: str, output: Port) -> str:
    """Return a loss that these outputs can have.

    Raises
    ------
    InputError
        When it is unknown, or cross entropy is asked of outputs that are neither probabilities nor logits.
    """
    check_name("loss", loss, LOSSES)
    if loss == "cross_entropy" and (output.low, output.high) not in ((0.0, 1.0), (-np.inf, np.inf)):
        raise InputError(
            f"cross_entropy needs outputs in [0, 1] or unbounded; these lie in [{output.low:g}, {output.high:g}]; "
            "expected loss 'mse'"
        )
    return loss


def sample_losses(loss: str, outputs: Array, targets: Array, output: Port) -> Floats:
    """Loss of each sample, shape (batch,), as `inmaterio.simulators.digital_twin.batch_loss` has it in the mean."""
    if loss == "cross_entropy" and output.high == np.inf:
        o = np.asarray(outputs, dtype=np.float64)
        shifted = o - o.max(axis=1, keepdims=True)
        logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(-np.sum(targets * logarithms, axis=1))
    return loss_values(outputs, targets, loss)


def typical_scales(parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """How large a change of one element of each parameter counts as 1, in its unit: what a relative size multiplies.

    Half the range where it is bounded. Without bounds 1/sqrt(from) for a coupling (to, from), and 1 for anything else: when
    all elements are changed by s times this, with random signs, what a coupling or a bias drives moves by s times the root mean
    square of what enters it.
    """
    scales = {}
    for name, one in parameters.items():
        if np.isfinite(one.low) and np.isfinite(one.high):
            scales[name] = 0.5 * float(one.high - one.low)
        else:
            scales[name] = float(one.shape[1] ** -0.5) if len(one.shape) == 2 else 1.0
    return scales


def random_signs(key: Key, parameters: Mapping[str, Parameter]) -> dict[str, Floats]:
    """+1 or -1 for every element, each parameter from a stream of its own."""
    return {name: np.asarray(2.0 * key.at(name).generator().integers(0, 2, one.shape) - 1.0) for name, one in parameters.items()}


def parameter_count(parameters: Mapping[str, Parameter]) -> int:
    """Number of elements of all parameters."""
    return int(sum(np.prod(one.shape, dtype=int) for one in parameters.values()))


def counted_losses(substrate: Any, loss: str, outputs: Array, targets: Array) -> Floats:
    """Loss of each sample as the host computes it: about two operations per output are counted."""
    _count(substrate, 0, 2 * outputs.size, outputs.size)
    return sample_losses(loss, outputs, targets, substrate.ports["output"])


def count_correlation(substrate: Any, elements: int) -> None:
    """Count one multiply-accumulate per element: change of the loss times what was done to the element."""
    _count(substrate, elements, 0, 2 * elements)


def _count(substrate: Any, macs: int, operations: int, words: int) -> None:
    for event, amount in (("mac_fp32", macs), ("alu_fp32", operations), ("byte_sram", WORD_BYTES * words)):
        if amount:
            substrate.ledger.count("host", "loss contrast", event, amount)
