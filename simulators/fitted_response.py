"""A model of what a physical system answers, fitted to pairs of drive and response that were measured on it.

    response = C [z; 1] + V tanh(U [z; 1]),   z = drive (and, where the physics can be tuned, the tuned values behind it)

The linear part alone (no hidden units) is found by least squares: the best linear map of the same size. With hidden units all
of it is found by Adam on the mean squared error, from that linear map on. Some pairs are held out and say how far to trust it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_array, check_range
from inmaterio.simulators.digital_twin import WORD_BYTES, to_array, to_tensor

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of the pairs on which the fit is judged."""

RIDGE = 1e-6
"""Regularisation of the least squares, relative to the mean square of a drive: for drives that do not span their space."""

RATE, BATCH = 5e-3, 100
"""Of Adam: first rate, which falls to zero on a cosine, and pairs per update."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedResponse:
    """A fitted model.

    Attributes
    ----------
    linear : ndarray, shape (n_out, n_in + 1)
        C, offset last.
    inner, outer : ndarray, shapes (hidden, n_in + 1) and (n_out, hidden)
        U and V; hidden may be 0.
    fidelity : float
        R^2 on the pairs held out, over all outputs together; 1 is perfect, 0 no better than their mean.
    """

    linear: Floats
    inner: Floats
    outer: Floats
    fidelity: float

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates of one response."""
        return int(self.linear.size + self.inner.size + self.outer.size)

    def respond(self, drive: Floats) -> Floats:
        """Responses (batch, n_out) to drives (batch, n_in)."""
        extended = np.concatenate([drive, np.ones((len(drive), 1))], axis=1)
        return np.asarray(extended @ self.linear.T + np.tanh(extended @ self.inner.T) @ self.outer.T)

    def differentiable(self, drive: "torch.Tensor") -> "torch.Tensor":
        """The same on tensors, differentiable in the drive."""
        import torch

        extended = torch.cat([drive, torch.ones((len(drive), 1), dtype=drive.dtype)], dim=1)
        linear, inner, outer = (to_tensor(one, drive.dtype) for one in (self.linear, self.inner, self.outer))
        return extended @ linear.T + torch.tanh(extended @ inner.T) @ outer.T

    def to_arrays(self) -> dict[str, Any]:
        """For a snapshot."""
        return {"linear": self.linear.copy(), "inner": self.inner.copy(), "outer": self.outer.copy(), "fidelity": self.fidelity}

    @classmethod
    def from_arrays(cls, arrays: Any) -> "FittedResponse":
        """From a snapshot."""
        linear, inner, outer = (np.array(arrays[name], dtype=np.float64) for name in ("linear", "inner", "outer"))
        return cls(linear, inner, outer, float(arrays["fidelity"]))


def fit_response(drive: Floats, response: Floats, *, hidden: int, epochs: int, key: Key, ledger: Ledger) -> FittedResponse:
    """Fit a model to measured pairs; the host's work is counted under role ``"host"``, component ``"twin fit"``.

    Parameters
    ----------
    drive, response : ndarray, shapes (pairs, n_in) and (pairs, n_out)
    hidden : int
        Hidden units; 0 fits the best linear map.
    epochs : int
        Passes of Adam over the pairs; without hidden units none are made.
    key : Key
        Of the first values and the order.
    ledger : Ledger

    Raises
    ------
    InputError
        When there are too few pairs or they do not fit each other.
    """
    import torch

    check_range("hidden units of the fitted twin", hidden, low=0)
    pairs = len(check_array("drive", drive, shape=(None, None)))
    check_array("response", response, shape=(pairs, None))
    kept = pairs - int(HELD_OUT * pairs)
    if kept < 2 or kept == pairs:
        raise InputError(f"{pairs} measured pairs are too few to fit a twin to; expected at least 10")
    order = key.at("order").generator().permutation(pairs)
    drive, response = drive[order], response[order]
    extended = np.concatenate([drive, np.ones((pairs, 1))], axis=1)
    fitted = extended[:kept]
    gram = fitted.T @ fitted + RIDGE * float(np.mean(drive**2) + 1e-12) * kept * np.eye(fitted.shape[1])
    linear = np.linalg.solve(gram, fitted.T @ response[:kept]).T
    size_in, size_out = fitted.shape[1], response.shape[1]
    macs = kept * size_in * (size_in + size_out) + size_in**3 // 3
    inner, outer = np.zeros((hidden, size_in)), np.zeros((size_out, hidden))
    if hidden:
        rng = key.at("first values").generator()
        inner = rng.normal(size=(hidden, size_in)) * np.sqrt(1.0 / max(float(np.mean(np.sum(fitted**2, axis=1))), 1e-12))
        scale = torch.from_numpy(1.0 / np.maximum(response[:kept].std(axis=0), 1e-9))
        tensors = [torch.from_numpy(one.copy()).requires_grad_() for one in (linear, inner, outer)]
        inputs, targets = torch.from_numpy(fitted), torch.from_numpy(response[:kept])
        adam = torch.optim.Adam(tensors, lr=RATE)
        steps = epochs * (-(-kept // BATCH))
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for epoch in range(epochs):
            shuffled = torch.from_numpy(key.at("order", epoch + 1).generator().permutation(kept))
            for first in range(0, kept, BATCH):
                rows = shuffled[first : first + BATCH]
                predicted = inputs[rows] @ tensors[0].T + torch.tanh(inputs[rows] @ tensors[1].T) @ tensors[2].T
                loss = torch.mean(((predicted - targets[rows]) * scale) ** 2)
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                falling.step()
        linear, inner, outer = (to_array(one) for one in tensors)
        macs += 3 * epochs * kept * (linear.size + inner.size + outer.size)
    size = linear.size + inner.size + outer.size
    ledger.count("host", "twin fit", "mac_fp32", macs)
    ledger.count(
        "host", "twin fit", "byte_sram", WORD_BYTES * (pairs * (size_in + size_out) * max(epochs if hidden else 1, 1) + size)
    )
    model = FittedResponse(linear, inner, outer, 0.0)
    held_out = response[kept:]
    missed = float(np.sum((model.respond(drive[kept:]) - held_out) ** 2))
    spread = float(np.sum((held_out - response[:kept].mean(axis=0)) ** 2))
    return FittedResponse(linear, inner, outer, 1.0 - missed / max(spread, 1e-30))
