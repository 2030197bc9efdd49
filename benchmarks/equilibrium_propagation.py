"""Centred equilibrium-propagation gradient of a 784-512-10 network, sigmoid(4 z - 2), batch 20, float32.

The inputs are the 8x8 digits of scikit-learn enlarged to 28x28, the weights half-Glorot, the biases zero. Both references
make 40 free and 15 + 15 nudged synchronous steps. Ours does so in ``equilibrium-propagation-synchronous``, whose gradient is the
references' to rounding, and takes fewer even/odd sweeps to the same residual in ``equilibrium-propagation-even-odd``, which
truncates the nudged phase in another place; there the distance of both to the gradient of fully settled phases is given.

The limit is the matrix products as called, with their shapes, and the exponentials, by numpy into arrays that stand ready:
W_1 x once, both directions of W_2 at every step, two products of activities, one exponential per node and step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from torch import Tensor

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark, load_file
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Nudge, Outer, Write

Float32 = NDArray[np.float32]

WIDTHS = (784, 512, 10)
BATCH = 20
BETA = 0.2
FREE_STEPS, NUDGED_STEPS = 40, 15

phi_autograd = load_file(Path(__file__).with_name("reference_phi_autograd.py"))
plain_torch = load_file(Path(__file__).with_name("reference_plain_torch.py"))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Order of the updates, how many, and how far the gradient may be from the references'."""

    name: str
    free_steps: int
    nudged_steps: int
    difference: float


SCHEDULES = (Schedule("synchronous", FREE_STEPS, NUDGED_STEPS, 1e-5), Schedule("even-odd", 20, 10, 1e-3))


def draw_parameters(widths: Sequence[int], seed: int) -> dict[str, Float32]:
    """Weights uniform in +- 1/2 sqrt(6 / (n_in + n_out)), biases zero."""
    generator = np.random.default_rng(seed)
    parameters = {}
    for depth, (width_in, width_out) in enumerate(pairwise(widths), start=1):
        bound = 0.5 * np.sqrt(6.0 / (width_in + width_out))
        parameters[f"weight_{depth}"] = generator.uniform(-bound, bound, (width_out, width_in)).astype(np.float32)
        parameters[f"bias_{depth}"] = np.zeros(width_out, dtype=np.float32)
    return parameters


def enlarged_digits(count: int) -> tuple[Float32, Float32]:
    """Images (count, 784) in [0, 1] and one-hot targets (count, 10)."""
    digits = load_digits()
    images = zoom(digits.images[:count] / 16.0, (1.0, 3.5, 3.5), order=1)
    return images.reshape(count, 784).astype(np.float32), np.eye(10, dtype=np.float32)[digits.target[:count]]


def relative_difference(gradient: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """Largest over the parameters of |g - expected| / |expected|, Euclidean norms."""
    return max(
        float(np.linalg.norm(gradient[name].astype(np.float64) - value) / np.linalg.norm(value.astype(np.float64)))
        for name, value in expected.items()
    )


def cosine(gradient: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """Cosine between two gradients over all parameters together."""
    a, b = (np.concatenate([set_[name].ravel().astype(np.float64) for name in expected]) for set_ in (gradient, expected))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def floor(widths: tuple[int, int, int], batch: int, steps: int) -> Callable[[], None]:
    """What any implementation of `steps` steps in all must call, on arrays of its own."""
    n_in, n_hidden, n_out = widths
    generator = np.random.default_rng(0)

    def array(*shape: int) -> Float32:
        return generator.uniform(0.0, 1.0, shape).astype(np.float32)

    inputs, hidden, output = array(batch, n_in), array(batch, n_hidden), array(batch, n_out)
    weight_1, weight_2 = array(n_hidden, n_in), array(n_out, n_hidden)
    to_hidden, to_output = np.empty_like(hidden), np.empty_like(output)
    contrast_1, contrast_2 = np.empty_like(weight_1), np.empty_like(weight_2)

    def run() -> None:
        np.matmul(inputs, weight_1.T, out=to_hidden)
        for _ in range(steps):
            np.matmul(output, weight_2, out=to_hidden)
            np.exp(hidden, out=to_hidden)
            np.matmul(hidden, weight_2.T, out=to_output)
            np.exp(output, out=to_output)
        np.matmul(hidden.T, inputs, out=contrast_1)
        np.matmul(output.T, hidden, out=contrast_2)

    return run


def numpy_gradient(estimates: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """A reference's gradient as arrays."""
    return {name: value.numpy() for name, value in estimates.items()}


def relax_with_residual(
    tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, start: list[Tensor], beta: float, steps: int
) -> tuple[list[Tensor], float]:
    """States after the references' steps, and the largest change of a node in the last one."""
    before = plain_torch.relax(tensors, inputs, start, targets, beta, steps - 1)
    states = plain_torch.relax(tensors, inputs, before, targets, beta, 1)
    return states, max(float((new - old).abs().max()) for new, old in zip(states, before, strict=True))


def define(schedule: Schedule) -> Benchmark:
    """The benchmark with our updates in this order."""
    parameters = draw_parameters(WIDTHS, seed=0)
    images, labels = enlarged_digits(2 * BATCH)
    inputs, targets = images[:BATCH], labels[:BATCH]
    samples = np.arange(BATCH, dtype=np.int64)
    # two batches take turns, as in training: the network keeps W_1 x of the last inputs through the phases of one update,
    # and must not be handed the next update's
    batches = (Batch(inputs, targets, samples), Batch(images[BATCH:], labels[BATCH:], samples + BATCH))
    turns = cycle(reversed(batches))

    substrate = hopfield.build(WIDTHS, chip=Key(0), dtype="float32", schedule=schedule.name)
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        substrate.program({name: Write(values) for name, values in parameters.items()}, key=Key(0).at("init"))
    rule = equilibrium_propagation.build(
        substrate=substrate, beta=BETA, variant="centred", free_steps=schedule.free_steps, nudged_steps=schedule.nudged_steps
    )
    state = rule.init(Key(0))
    key = Key(0).at("noise")

    def gradient(batch: Batch) -> dict[str, NDArray[Any]]:
        with ledger.phase("train"):
            estimates = rule.update(state, batch, key).estimates
        return {name: value.dense() if isinstance(value, Outer) else value for name, value in estimates.items()}

    tensors = {name: torch.from_numpy(values) for name, values in parameters.items()}
    data = torch.from_numpy(inputs), torch.from_numpy(targets)
    as_ours = {"beta": BETA, "free_steps": FREE_STEPS, "nudged_steps": NUDGED_STEPS}

    def facts() -> dict[str, float]:
        exact = {name: value.double() for name, value in tensors.items()}, data[0].double(), data[1].double()
        settled = numpy_gradient(plain_torch.gradient(*exact, beta=BETA, free_steps=100, nudged_steps=100))
        # the centred estimate is off by O(beta^2): 1e-3 of the loss's own gradient is far below what is printed
        true = numpy_gradient(plain_torch.gradient(*exact, beta=1e-3, free_steps=100, nudged_steps=100))
        by_autograd = numpy_gradient(phi_autograd.gradient(tensors, *data, **as_ours))
        by_hand = numpy_gradient(plain_torch.gradient(tensors, *data, **as_ours))
        estimate = gradient(batches[0])
        with ledger.phase("evaluate"):
            free = substrate.settle(inputs, samples=samples, key=key, steps=schedule.free_steps)
            nudged = [
                substrate.settle(
                    inputs, samples=samples, key=key, nudge=Nudge("mse", targets, beta), start="free", steps=schedule.nudged_steps
                )
                for beta in (BETA, -BETA)
            ]
        rest = [torch.zeros(BATCH, width) for width in WIDTHS[1:]]
        reference_free, reference_free_residual = relax_with_residual(tensors, *data, rest, 0.0, FREE_STEPS)
        reference_residuals = [
            relax_with_residual(tensors, *data, reference_free, beta, NUDGED_STEPS)[1] for beta in (BETA, -BETA)
        ]
        return {
            "cosine to the gradient of the loss": cosine(estimate, true),
            "the references' cosine": cosine(by_hand, true),
            "difference from phi-autograd": relative_difference(estimate, by_autograd),
            "difference from plain-torch": relative_difference(estimate, by_hand),
            "difference between the references": relative_difference(by_hand, by_autograd),
            "difference from settled phases": relative_difference(estimate, settled),
            "the references' difference from settled phases": relative_difference(by_hand, settled),
            "free residual": float(free.residual.max()),
            "the references' free residual": reference_free_residual,
            "nudged residual": max(float(phase.residual.max()) for phase in nudged),
            "the references' nudged residual": max(reference_residuals),
            "free steps": float(schedule.free_steps),
            "nudged steps": float(schedule.nudged_steps),
        }

    return Benchmark(
        name=f"equilibrium-propagation-{schedule.name}",
        ours=lambda: gradient(next(turns)),
        references={
            "phi-autograd": lambda: phi_autograd.gradient(tensors, *data, **as_ours),
            "plain-torch": lambda: plain_torch.gradient(tensors, *data, **as_ours),
        },
        limit=floor(WIDTHS, BATCH, schedule.free_steps + 2 * schedule.nudged_steps),
        facts=facts,
        samples=BATCH,
        tolerances={
            "difference between the references": 1e-5,
            "difference from phi-autograd": schedule.difference,
            "difference from plain-torch": schedule.difference,
        },
    )


def benchmarks() -> Sequence[Benchmark]:
    """Synchronous and even/odd."""
    return [define(schedule) for schedule in SCHEDULES]
