"""Batch normalisation of what drives spiking neurons: in training on tensors, afterwards as weights and biases of a chip.

Of the drive x_j[t] that the synapses from the layer below bring neuron j in step t, no bias among it, the neuron gets

    y_j[t] = gain_j (x_j[t] - mean_j) / sqrt(variance_j + 1e-5) + shift_j

with the mean and the variance of all steps and samples of the batch in training, and with running ones otherwise. After each
batch of n values per neuron these move, r <- 0.9 r + 0.1 (of the batch), its variance then multiplied by n / (n - 1). What a
layer's own spikes bring is added behind, as it is.

A chip cannot normalise; but with running statistics y is x of other weights and a bias (`fold`), which a chip can hold:

    weight_ji gain_j / sqrt(variance_j + 1e-5),   bias_j = shift_j - mean_j gain_j / sqrt(variance_j + 1e-5)

Sources: Ioffe and Szegedy, ICML 2015, arXiv:1502.03167; its place and its numbers, which are torch's: Hammouamri,
Khalfaoui-Hassani and Masquelier, ICLR 2024, arXiv:2306.17670.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name
from inmaterio.simulators.capabilities import Array

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float64]

EPSILON = 1e-5
"""Added to a variance before its root is taken."""

MOMENTUM = 0.1
"""Part of running statistics that a batch replaces."""

FORWARD_MACS, BACKWARD_MACS = 3, 4
"""Multiply-accumulates per value normalised: mean, variance, scale and shift; backward two sums, and two for its gradient."""


@final
class RunningStatistics:
    """Running mean and variance of the drive of every neuron: 0 and 1 to begin with.

    They are one thing, whoever looks: training passes of all twins that were made with them move them, and those of
    copies of these twins too. So a copy of this object is the object itself.

    Attributes
    ----------
    means, variances : list of ndarray, each (width,)
        By layer, from 1 on.
    moved : ndarray of int, shape (L,)
        How often each layer's were moved since `settle`.

    Parameters
    ----------
    widths : sequence of int
        Neurons of the layers.
    dtype : float32 or float64
    """

    def __init__(self, widths: Sequence[int], dtype: DTypeLike) -> None:
        self.means: list[Array] = [np.zeros(width, dtype) for width in widths]
        self.variances: list[Array] = [np.ones(width, dtype) for width in widths]
        self.moved = np.zeros(len(widths), dtype=np.int64)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RunningStatistics":
        return self

    def settle(self) -> None:
        """Take what they are now for what is known outside."""
        self.moved[:] = 0

    def values(self) -> dict[str, Array]:
        """Copies: ``normalisation/mean_k`` and ``normalisation/variance_k``, k = 1..L."""
        named = {f"normalisation/mean_{k}": one.copy() for k, one in enumerate(self.means, 1)}
        return named | {f"normalisation/variance_{k}": one.copy() for k, one in enumerate(self.variances, 1)}

    def snapshot(self) -> dict[str, Array]:
        """`values`, and how often they were moved."""
        return self.values() | {"normalisation/moved": self.moved.copy()}

    def checked(self, snapshot: Mapping[str, Any]) -> dict[str, Array]:
        """The entries of a snapshot that are ours.

        Raises
        ------
        InputError
            When one is missing or does not fit.
        """
        found = {}
        for name, now in self.snapshot().items():
            check_name("entry of the snapshot", name, snapshot)
            low = 0.0 if "mean" not in name else None
            found[name] = np.array(check_array(name, snapshot[name], shape=now.shape, low=low), dtype=now.dtype)
        return found

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a snapshot, to the same bits.

        Raises
        ------
        InputError
            As `checked`; nothing is changed then.
        """
        found = self.checked(snapshot)
        for k, (mean, variance) in enumerate(zip(self.means, self.variances, strict=True), 1):
            mean[:], variance[:] = found[f"normalisation/mean_{k}"], found[f"normalisation/variance_{k}"]
        self.moved[:] = found["normalisation/moved"]


def scales(gain: Float, variance: Array) -> Float:
    """gain / sqrt(variance + 1e-5) of each neuron."""
    return np.asarray(gain / np.sqrt(variance.astype(np.float64) + EPSILON))


def fold(weight: Float, gain: Float, shift: Float, mean: Array, variance: Array) -> tuple[Float, Float]:
    """Weights (to, from) and bias (to,) that drive neurons as these weights do with normalisation behind them."""
    scale = scales(gain, variance)
    return weight * scale[:, None], shift - mean.astype(np.float64) * scale


def make_normalisation(
    gains: Sequence[Array], shifts: Sequence[Array], statistics: RunningStatistics, dtype: "torch.dtype"
) -> "torch.nn.Module":
    """What normalises the drive of layer k, called as ``normalisation(k, drive)`` with drive (steps, batch, width).

    Its parameters are gain_k and shift_k. A pass trains, with the batch's own statistics, and moves `statistics`, where the
    module is in training mode, as modules of torch are to begin with, and gradients are recorded; in evaluation mode, or where
    torch records none, running ones are used and nothing moves. ``normalisation.use(values)`` takes running statistics as
    `RunningStatistics.values` gave them from then on, in this module alone, which then trains no more; ``held()`` gives those
    that are in use, ``trains()`` says whether the next pass trains.
    """
    return _module()(gains, shifts, statistics, dtype)  # type: ignore[no-any-return]


@cache
def _module() -> Any:
    """The module's class; made on first use, since torch takes a second to import."""
    import torch

    class Normalisation(torch.nn.Module):
        def __init__(
            self, gains: Sequence[Array], shifts: Sequence[Array], statistics: RunningStatistics, dtype: torch.dtype
        ) -> None:
            super().__init__()
            self.statistics = statistics
            self.given: Mapping[str, Array] | None = None
            for k, (gain, shift) in enumerate(zip(gains, shifts, strict=True), 1):
                self.register_parameter(f"gain_{k}", torch.nn.Parameter(torch.from_numpy(np.array(gain)).to(dtype)))
                self.register_parameter(f"shift_{k}", torch.nn.Parameter(torch.from_numpy(np.array(shift)).to(dtype)))

        def held(self) -> dict[str, Array]:
            return self.statistics.values() if self.given is None else dict(self.given)

        def use(self, values: Mapping[str, Array]) -> None:
            self.given = {name: np.array(values[name]) for name in self.statistics.values()}

        def trains(self) -> bool:
            return self.training and torch.is_grad_enabled() and self.given is None

        def forward(self, layer: int, drive: torch.Tensor) -> torch.Tensor:
            if self.given is None:
                kept = self.statistics.means[layer - 1], self.statistics.variances[layer - 1]
            else:
                kept = self.given[f"normalisation/mean_{layer}"], self.given[f"normalisation/variance_{layer}"]
            trains = self.trains()
            flat = drive.reshape(-1, drive.shape[-1])
            if trains and len(flat) < 2:
                raise InputError(
                    "a batch of 1 sample in 1 step has no variance to normalise with; expected more samples or steps"
                )
            # in the statistics' own memory, unless this twin is of another dtype
            running = [torch.from_numpy(one).to(drive.dtype) for one in kept]
            gain, shift = self.get_parameter(f"gain_{layer}"), self.get_parameter(f"shift_{layer}")
            normal = torch.nn.functional.batch_norm(flat, running[0], running[1], gain, shift, trains, MOMENTUM, EPSILON)
            if trains:
                for own, moved in zip(kept, running, strict=True):
                    np.copyto(own, moved.numpy(), casting="same_kind")
                self.statistics.moved[layer - 1] += 1
            return normal.reshape(drive.shape)

    return Normalisation
