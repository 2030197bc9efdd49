"""Dual-propagation gradient of a 784-1000-1000-1000-1000-10 network, rectified, batch 100, float32: dense, no optimiser step.

The network and its settings are those with which Høier, Staudt and Zach (ICML 2023) train it on handwritten digits: alpha 1/2,
one sweep, squared error, Glorot-uniform weights, zero biases; the inputs are random. The reference is torch's autograd on the
same values. Between rectifiers and a linearised output the two gradients differ only where a kink lies between a - u/2 and
a + u/2; how far, and how near they come as beta falls, is among the facts.

The limit is the matrix products alone, by numpy into arrays that stand ready: five up, four down, five of activities.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark
from inmaterio.learning_rules import dual_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import digital
from inmaterio.simulators.capabilities import Outer, Write

Float32 = NDArray[np.float32]

WIDTHS = (784, 1000, 1000, 1000, 1000, 10)
BATCH = 100


def draw_values(seed: int) -> dict[str, Float32]:
    """Weights uniform in +-sqrt(6 / (n_in + n_out)), biases zero."""
    generator = np.random.default_rng(seed)
    values = {}
    for depth, (width_in, width_out) in enumerate(pairwise(WIDTHS), start=1):
        bound = np.sqrt(6.0 / (width_in + width_out))
        values[f"weight_{depth}"] = generator.uniform(-bound, bound, (width_out, width_in)).astype(np.float32)
        values[f"bias_{depth}"] = np.zeros(width_out, dtype=np.float32)
    return values


def draw_batch(seed: int) -> Batch:
    """Uniform inputs in [0, 1] and one-hot targets."""
    generator = np.random.default_rng(seed)
    inputs = generator.uniform(0.0, 1.0, (BATCH, WIDTHS[0])).astype(np.float32)
    targets = np.eye(WIDTHS[-1], dtype=np.float32)[generator.integers(WIDTHS[-1], size=BATCH)]
    return Batch(inputs, targets, np.arange(BATCH, dtype=np.int64))


def matrix_products() -> tuple[Callable[[], None], float]:
    """A call that makes the products of one gradient, and how many 10^9 floating-point operations they are."""
    generator = np.random.default_rng(0)

    def array(*shape: int) -> Float32:
        return generator.uniform(0.0, 1.0, shape).astype(np.float32)

    jobs = []
    operations = 0
    for depth, (width_in, width_out) in enumerate(pairwise(WIDTHS)):
        below, above, weight = array(BATCH, width_in), array(BATCH, width_out), array(width_out, width_in)
        jobs += [(below, weight.T, np.empty_like(above)), (above.T, below, np.empty_like(weight))]
        if depth:
            jobs.append((above, weight, np.empty_like(below)))
        operations += 2 * (3 if depth else 2) * BATCH * width_in * width_out

    def run() -> None:
        for left, right, out in jobs:
            np.matmul(left, right, out=out)

    return run, operations / 1e9


def relative_difference(gradient: Mapping[str, Float32], expected: Mapping[str, Float32]) -> float:
    """|g - expected| / |expected| over all parameters together, Euclidean norms."""
    difference, whole = (
        np.sqrt(sum(float(np.sum(np.square(one, dtype=np.float64))) for one in parts))
        for parts in ([gradient[name] - expected[name] for name in expected], list(expected.values()))
    )
    return float(difference / whole)


def benchmarks() -> Sequence[Benchmark]:
    """One."""
    values, batches = draw_values(0), (draw_batch(1), draw_batch(2))
    turns, reference_turns = cycle(batches), cycle(batches)
    substrate = digital.build(WIDTHS, chip=Key(0), activation="relu", dtype="float32")
    substrate.attach(ledger := Ledger(), "substrate")
    with ledger.phase("initialise"):
        substrate.program({name: Write(one) for name, one in values.items()}, key=Key(0))

    def make(beta: float) -> Callable[[Batch], dict[str, Float32]]:
        rule = dual_propagation.build(substrate=substrate, beta=beta)
        state = rule.init(Key(0))

        def gradient(batch: Batch) -> dict[str, Float32]:
            with ledger.phase("train"):
                estimates = rule.update(state, batch, Key(0)).estimates
            return {name: one.dense() if isinstance(one, Outer) else one for name, one in estimates.items()}

        return gradient

    ours, weak = make(1.0), make(1e-2)
    tensors = {name: torch.nn.Parameter(torch.from_numpy(one.copy())) for name, one in values.items()}
    data = {id(one): (torch.from_numpy(one.inputs), torch.from_numpy(one.targets)) for one in batches}

    def autograd(batch: Batch) -> tuple[torch.Tensor, ...]:
        state, targets = data[id(batch)]
        for depth in range(1, len(WIDTHS)):
            drive = torch.nn.functional.linear(state, tensors[f"weight_{depth}"], tensors[f"bias_{depth}"])
            state = torch.relu(drive) if depth < len(WIDTHS) - 1 else drive
        return torch.autograd.grad(0.5 * torch.sum((state - targets) ** 2) / BATCH, list(tensors.values()))

    limit, operations = matrix_products()

    def facts() -> dict[str, float]:
        exact = dict(zip(tensors, (one.numpy() for one in autograd(batches[0])), strict=True))
        return {
            "difference from autograd at beta 1": relative_difference(ours(batches[0]), exact),
            "difference from autograd at beta 0.01": relative_difference(weak(batches[0]), exact),
            "GFLOP of matrix products": operations,
        }

    return [
        Benchmark(
            name="dual-propagation",
            ours=lambda: ours(next(turns)),
            references={"torch-autograd": lambda: autograd(next(reference_turns))},
            limit=limit,
            facts=facts,
            samples=BATCH,
            tolerances={"difference from autograd at beta 1": 0.3, "difference from autograd at beta 0.01": 0.01},
        )
    ]
