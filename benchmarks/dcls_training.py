"""A training step with learnable delays, 140-256-256-20, 100 steps, batch 128, 25 taps: every gradient, no optimiser.

At the start of training (effective sigma 12.27 steps, inputs are counts) and late in it (effective sigma 1.27, binary inputs, at
most 5 % of inputs and hidden neurons active). The reference is the package dcls with a loop over the steps in plain torch. A
second one is the matrix products of plain dense convolutions alone, forward and both gradients: what no implementation by
convolution can leave out. The limit is the matrix products of ours, those per frequency and the transforms.

Gradients are compared in float64 as well: in float32 the order of sums alone can put a spike in a million on the other side of
the threshold, and one spike may change a gradient by more than rounding does.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark, load_file
from inmaterio.experiments.benchmark_demands import Demand, ratio_to
from inmaterio.simulators import delay_spectra
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_twin import make_twin

BATCH, STEPS, TAPS = 128, 100, 25
WIDTHS = (140, 256, 256, 20)
DESCRIPTION = SpikingDescription((STEPS * WIDTHS[0], *WIDTHS[1:]), steps=STEPS, max_delay=TAPS - 1, leak=0.5, output_leak=0.5)
SPREADS = {"start": (0.28, 0.28, 0.3), "late": (0.34, 0.19, 0.4)}
"""Standard deviations of the weights of each layer, which make the hidden neurons as active as they shall be."""

SIGMAS = {"start": 12.0, "late": 1.0}
BY_DCLS = "dcls and a loop in torch"
DEMANDS = {"start": (Demand(ratio_to(BY_DCLS), least=1.0 / 1.05),), "late": (Demand(ratio_to(BY_DCLS), least=2.0),)}
"""Late in training twice as fast; at its start, where everything is dense, at most 1.05 times as slow."""

REQUIREMENTS = ("dcls==0.1.1", "numpy", "torch==2.13.0")

peer_process = load_file(Path(__file__).with_name("peer_process.py"))


@cache
def draw(moment: str) -> tuple[dict[str, Any], Any, Any]:
    """Values, inputs (batch, steps, channels) in float32, and labels."""
    generator = Key(0).at(moment).generator()
    values: dict[str, Any] = {}
    for name, about in DESCRIPTION.parameters().items():
        if name.startswith("delay"):
            values[name] = generator.uniform(0.0, TAPS - 1.0, about.shape).astype(np.float32)
        elif name.startswith("weight"):
            values[name] = generator.normal(0.0, SPREADS[moment][about.layer - 1], about.shape).astype(np.float32)
        else:
            values[name] = generator.normal(0.0, 0.01, about.shape).astype(np.float32)
    shape = BATCH, STEPS, WIDTHS[0]
    spikes = generator.poisson(0.35, shape) if moment == "start" else generator.random(shape) < 0.05
    return values, spikes.astype(np.float32), generator.integers(0, WIDTHS[-1], BATCH)


@cache
def plain_products() -> Callable[[], None]:
    """The matrix products of dense convolutions: forward, of kernels, and of what is sent, the last but for the input layer."""
    generator = torch.Generator().manual_seed(0)
    jobs = []
    for place, (senders, receivers) in enumerate(pairwise(WIDTHS)):
        columns = torch.rand(BATCH * STEPS, senders * TAPS, generator=generator)
        kernels = torch.rand(senders * TAPS, receivers, generator=generator)
        drive = torch.rand(BATCH * STEPS, receivers, generator=generator)
        jobs += [(columns, kernels), (columns.t(), drive)]
        if place:
            jobs.append((torch.rand(BATCH * STEPS, receivers * TAPS, generator=generator), kernels.reshape(-1, senders)))

    def run() -> None:
        for left, right in jobs:
            torch.mm(left, right)

    return run


@cache
def spectral_products() -> Callable[[], None]:
    """The matrix products of the same convolutions by spectra."""
    generator = torch.Generator().manual_seed(0)
    jobs = []
    for place, (senders, receivers) in enumerate(pairwise(WIDTHS)):
        plan = delay_spectra.make_plan(STEPS, TAPS, senders, receivers)
        sent = torch.rand(STEPS, BATCH, senders, generator=generator)
        arrived = torch.rand(STEPS, BATCH, receivers, generator=generator)
        jobs.append((plan, sent, arrived, torch.rand(TAPS, senders, receivers, generator=generator), place > 0))

    def run() -> None:
        for plan, sent, arrived, kernels, behind in jobs:
            inside = delay_spectra.signal_spectrum(plan, sent, reach=False)
            outside = delay_spectra.signal_spectrum(plan, arrived, reach=True)
            spectrum = delay_spectra.kernel_spectrum(plan, kernels)
            delay_spectra.convolve(plan, inside, spectrum)
            delay_spectra.kernel_gradient(plan, inside, outside)
            if behind:
                delay_spectra.correlate(plan, outside, spectrum)

    return run


def relative_difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """Largest over the parameters of |found - wanted| / |wanted|, Euclidean norms."""
    return max(float(np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name])) for name in wanted)


def gradients(twin: Any, moment: str) -> dict[str, Any]:
    """Of the mean loss of the batch, in the twin's dtype."""
    _, spikes, labels = draw(moment)
    flat = torch.from_numpy(spikes.reshape(BATCH, -1))
    names, tensors = zip(*twin.named_parameters(), strict=True)
    loss = torch.nn.functional.cross_entropy(twin(flat), torch.from_numpy(labels))
    return dict(zip(names, (one.numpy() for one in torch.autograd.grad(loss, tensors)), strict=True))


@cache
def twin_of(moment: str, dtype: str = "float32") -> Any:
    """The network with its delays spread."""
    twin: Any = make_twin(replace(DESCRIPTION, dtype=dtype), draw(moment)[0])
    twin.use_gaussian(SIGMAS[moment])
    return twin


def define(moment: str) -> Benchmark:
    """The benchmark at one moment of training; nothing is made before it is asked for."""

    def ours() -> dict[str, Any]:
        return gradients(twin_of(moment), moment)

    def facts() -> dict[str, float]:
        products = sum((2 + (place > 0)) * one * other for place, (one, other) in enumerate(pairwise(WIDTHS)))
        spikes = draw(moment)[1]
        active = enumerate(twin_of(moment).record(torch.from_numpy(spikes.reshape(BATCH, -1)))[1], start=1)
        return {
            "effective sigma, steps": SIGMAS[moment] + 0.27,
            "inputs that are not zero": float(np.mean(spikes != 0)),
            **{f"activity of hidden layer {k}": float(one.detach().mean()) for k, one in active},
            "GMAC of plain convolutions": BATCH * STEPS * TAPS * products / 1e9,
        }

    benchmark = Benchmark(
        name=f"dcls-training-{moment}",
        ours=ours,
        references={"matrix products of dense convolutions": lambda: plain_products()()},
        limit=lambda: spectral_products()(),
        facts=facts,
        samples=BATCH,
        demands=DEMANDS[moment],
    )

    def prepare() -> Benchmark:
        folder = Path(tempfile.mkdtemp())
        values, spikes, labels = draw(moment)
        np.savez(folder / "job.npz", spikes=spikes, labels=labels, taps=TAPS, **values)
        job = {
            "inputs": str(folder / "job.npz"),
            "sigma": SIGMAS[moment],
            "leak": DESCRIPTION.leak,
            "output_leak": DESCRIPTION.output_leak,
        }
        try:
            peer = peer_process.PeerProcess("dcls", REQUIREMENTS, Path(__file__).with_name("reference_dcls.py"), job)
        except peer_process.AbsentError as reason:
            return replace(benchmark, prepare=None, absent={BY_DCLS: str(reason)})

        def compare() -> Mapping[str, float]:
            found = {}
            for dtype in ("float64", "float32"):
                peer.ask(do="save", path=str(folder / f"{dtype}.npz"), double=dtype == "float64")
                theirs = dict(np.load(folder / f"{dtype}.npz"))
                mine = gradients(twin_of(moment, dtype), moment)
                found[f"difference from dcls, {dtype}"] = relative_difference(mine, theirs)
            return {**facts(), **found}

        references = {BY_DCLS: peer.run, **benchmark.references}
        tolerances = {f"difference from dcls, {dtype}": 1e-5 for dtype in ("float64", "float32")}
        return replace(benchmark, prepare=None, references=references, facts=compare, tolerances=tolerances)

    return replace(benchmark, prepare=prepare)


def benchmarks() -> Sequence[Benchmark]:
    """At the start of training and late in it."""
    return [define(moment) for moment in SIGMAS]
