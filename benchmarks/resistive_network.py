"""Centred equilibrium-propagation gradient of a nonlinear resistive network with ideal diodes, float32, four sweeps per phase.

The two networks of Scellier (ICML 2024, arXiv:2402.11674) with one hidden layer that are given there: 784 inputs on 1568 sources,
100 hidden nodes in batches of 4, and 1024 in batches of 32, ten outputs; conductances uniform in +-gain/sqrt(n) and cut at 0 as
there, beta 1/4 of the smallest conductance sum of an output, enlarged digits as inputs. All contenders make the same
sweeps of exact block descent, free, positive and negative, and give a dense gradient.

References: the plain form in torch, which works out every drive in every sweep and squares all voltage differences of a
batch, and the same algorithm as ours in torch. The limit is the matrix products, each as often as it is needed, by numpy into
arrays that stand ready.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark, load_file
from inmaterio.learning_rules import equilibrium_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import resistive_network
from inmaterio.simulators.capabilities import Outer, Write

Float32 = NDArray[np.float32]

SWEEPS = 4
INPUT_GAIN = 100.0

enlarged_digits = load_file(Path(__file__).with_name("equilibrium_propagation.py")).enlarged_digits


@dataclass(frozen=True, slots=True)
class Job:
    """One network and batch."""

    name: str
    hidden: int
    batch: int


JOBS = (Job("resistive-network", 100, 4), Job("resistive-network-wide", 1024, 32))


def draw_values(hidden: int) -> dict[str, Float32]:
    """Conductances uniform in +-1/sqrt(n_in), cut at 0; no bias currents."""
    generator = np.random.default_rng(0)
    values = {}
    for depth, (width_in, width_out) in enumerate(((1568, hidden), (hidden, 10)), start=1):
        drawn = generator.uniform(-1.0, 1.0, (width_out, width_in)) / np.sqrt(width_in)
        values[f"weight_{depth}"] = np.maximum(drawn, 0.0).astype(np.float32)
    return values


class Torch:
    """Block descent and its gradient in torch, plain or with what does not change worked out once."""

    def __init__(self, values: Mapping[str, Float32], beta: float, *, plain: bool) -> None:
        self.first, self.second = (torch.from_numpy(values[name].copy()) for name in ("weight_1", "weight_2"))
        self.beta, self.plain = beta, plain
        half = (len(self.first) + 1) // 2
        self.low = torch.zeros(len(self.first))
        self.low[half:] = -torch.inf
        self.high = torch.zeros(len(self.first))
        self.high[:half] = torch.inf
        self.sums = self.first.sum(1) + self.second.sum(0), self.second.sum(1)

    def settle(
        self, sources: torch.Tensor, start: tuple[torch.Tensor, torch.Tensor], beta: float, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, outputs = start
        held = sources @ self.first.T
        for _ in range(SWEEPS):
            if self.plain:
                held = sources @ self.first.T
            totals = self.first.sum(1) + self.second.sum(0) if self.plain else self.sums[0]
            hidden = ((held + outputs @ self.second) / totals).clamp(self.low, self.high)
            totals = self.second.sum(1) if self.plain else self.sums[1]
            outputs = (hidden @ self.second.T + beta * targets) / (totals + beta)
        return hidden, outputs

    def gradient(self, sources: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = len(sources)
        zero = torch.zeros(batch, len(self.first)), torch.zeros(batch, len(self.second))
        free = self.settle(sources, zero, 0.0, targets)
        up, down = (self.settle(sources, free, beta, targets) for beta in (self.beta, -self.beta))
        scale = 1.0 / (2.0 * self.beta * batch)
        if self.plain:
            found = [
                0.5
                * scale
                * (torch.square(a[:, :, None] - b[:, None, :]).sum(0) - torch.square(c[:, :, None] - d[:, None, :]).sum(0))
                for a, b, c, d in ((up[0], sources, down[0], sources), (up[1], up[0], down[1], down[0]))
            ]
            return found[0], found[1]
        squares = [0.5 * (torch.square(a) - torch.square(b)).sum(0) for a, b in zip(up, down, strict=True)]
        first = squares[0][:, None] - (up[0] - down[0]).T @ sources
        second = squares[1][:, None] + squares[0][None, :] - (up[1].T @ up[0] - down[1].T @ down[0])
        return scale * first, scale * second


def matrix_products(job: Job) -> tuple[Callable[[], None], float]:
    """A call that makes the products of one gradient, and how many 10^6 floating-point operations they are."""
    generator = np.random.default_rng(0)

    def array(*shape: int) -> Float32:
        return generator.uniform(0.0, 1.0, shape).astype(np.float32)

    batch, hidden = job.batch, job.hidden
    sources, states, outputs = array(batch, 1568), array(batch, hidden), array(batch, 10)
    first, second = array(hidden, 1568), array(10, hidden)
    into_hidden, into_outputs = np.empty_like(states), np.empty_like(outputs)
    gradients = np.empty_like(first), np.empty_like(second)

    def run() -> None:
        np.matmul(sources, first.T, out=into_hidden)
        for _ in range(3 * SWEEPS):
            np.matmul(outputs, second, out=into_hidden)
            np.matmul(states, second.T, out=into_outputs)
        np.matmul(states.T, sources, out=gradients[0])
        np.matmul(outputs.T, states, out=gradients[1])

    operations = 2 * batch * hidden * (2 * 1568 + 10 * (6 * SWEEPS + 1))
    return run, operations / 1e6


def relative_difference(gradient: Mapping[str, Float32], expected: Mapping[str, Float32]) -> float:
    """Largest over the parameters of |g - expected| / |expected|, Euclidean norms."""
    return max(
        float(np.linalg.norm(gradient[name].astype(np.float64) - one) / np.linalg.norm(one.astype(np.float64)))
        for name, one in expected.items()
    )


def cosine(gradient: Mapping[str, Float32], expected: Mapping[str, NDArray[np.float64]]) -> float:
    """Of all parameters taken as one vector."""
    ours, exact = (np.concatenate([np.ravel(one[name]) for name in expected]).astype(np.float64) for one in (gradient, expected))
    return float(ours @ exact / np.linalg.norm(ours) / np.linalg.norm(exact))


def benchmark(job: Job) -> Benchmark:
    """One network against both references."""
    values = draw_values(job.hidden)
    beta = 0.25 * float(values["weight_2"].sum(axis=1).min())
    substrate = resistive_network.build(
        (784, job.hidden, 10), chip=Key(0), bias=False, volts_per_output=1.0 / INPUT_GAIN, settle_steps=SWEEPS
    )
    substrate.attach(ledger := Ledger(), "substrate")
    with ledger.phase("initialise"):
        substrate.program({name: Write(one) for name, one in values.items()}, key=Key(0))
    images, targets = enlarged_digits(2 * job.batch)
    batches = [
        Batch(images[rows], targets[rows], np.arange(job.batch, dtype=np.int64))
        for rows in (slice(0, job.batch), slice(job.batch, None))
    ]
    rule = equilibrium_propagation.build(substrate=substrate, beta=beta, free_steps=SWEEPS, nudged_steps=SWEEPS)
    state = rule.init(Key(0))

    def ours(batch: Batch) -> dict[str, Float32]:
        with ledger.phase("train"):
            estimates = rule.update(state, batch, Key(0)).estimates
        return {name: one.dense() if isinstance(one, Outer) else one for name, one in estimates.items()}

    data = {}
    for batch in batches:
        doubled = np.concatenate([batch.inputs, -batch.inputs], axis=1) * np.float32(INPUT_GAIN)
        data[id(batch)] = torch.from_numpy(doubled), torch.from_numpy(batch.targets)
    contenders = {name: Torch(values, beta, plain=name == "plain-torch") for name in ("plain-torch", "torch")}
    limit, operations = matrix_products(job)

    def reference(name: str) -> Callable[[], object]:
        return lambda: contenders[name].gradient(*data[id(next(turns[name]))])

    turns = {name: cycle(batches) for name in ("ours", *contenders)}

    def facts() -> dict[str, float]:
        found = ours(batches[0])
        others = {
            name: dict(zip(values, (one.numpy() for one in other.gradient(*data[id(batches[0])])), strict=True))
            for name, other in contenders.items()
        }
        exact = substrate.oracle().loss_gradient(batches[0].inputs, batches[0].targets, "mse")
        with ledger.phase("evaluate"):
            settled = substrate.settle(batches[0].inputs, samples=batches[0].samples, key=Key(0), steps=SWEEPS)
        return {
            **{f"difference from {name}": relative_difference(found, other) for name, other in others.items()},
            "cosine to the exact gradient": cosine(found, exact),
            "residual of the free phase in volts": float(settled.residual.max()) / INPUT_GAIN,
            "MFLOP of matrix products": operations,
        }

    return Benchmark(
        name=job.name,
        ours=lambda: ours(next(turns["ours"])),
        references={name: reference(name) for name in contenders},
        limit=limit,
        facts=facts,
        samples=job.batch,
        # the plain form loses in float32 what squares of voltages some hundred times the nudge's effect leave
        tolerances={"difference from plain-torch": 1e-2, "difference from torch": 1e-3},
    )


def benchmarks() -> Sequence[Benchmark]:
    """One for each size."""
    return [benchmark(job) for job in JOBS]
