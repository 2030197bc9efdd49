"""A spiking network 700-256-256-20 with a delay of 0 to 24 steps per synapse; inputs fire at 1.5 %, hidden layers at 7 and 4 %.

Three jobs. *scatter*: the events of a hidden layer's inputs over 100 steps, added to where and when they arrive; a sample is 100
steps. *batch*: 16 samples of 100 steps. *stream*: one sample of 10,000 steps, a hundred times as much work; there Brian2 has its
process started, its synapses loaded and its results written once, and takes turns with torch. A sample is 100 steps there too.

The limit of the scatter reads each event's 6 bytes, a weight and a place, in order and adds them up. That of the networks is what
their delayed synaptic events take: of each a weight, a place and a slot are loaded and the slot stored, all slots in a core's
first cache, no neuron updated.

Weights are multiples of 1/1024, so that sums do not depend on their order. Brian2 calculates in double precision, and a membrane
that comes to within rounding of its threshold may fire in one and not in the other: spikes that differ are a fact.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.benchmark import Benchmark, load_file
from inmaterio.experiments.benchmark_demands import PER_SAMPLE, Demand, ratio_to
from inmaterio.simulators.capabilities import Write
from inmaterio.simulators.spiking_events import scatter_events
from inmaterio.simulators.spiking_network import SpikingNetwork, build

Floats = NDArray[np.float64]

CHANNELS, HIDDEN, OUTPUTS = 700, 256, 20
MAX_DELAY = 24
LEAK = 0.875
INPUT_RATE = 0.015
WEIGHT_SPREADS = {"weight_1": 0.245, "weight_2": 0.1, "weight_3": 0.1}
STEPS, BATCH = 100, 16
LONG_STEPS, QUIET_STEPS = 10_000, 80
LARGEST_DIFFERENCE = 1e-3

BY_TORCH, BY_BRIAN2 = "torch, convolutions", "Brian2 cpp_standalone"
EVENTS = "delayed synaptic events"
SCATTER_DEMANDS = (Demand(f"{EVENTS}/s", least=1.5e9),)
BATCH_DEMANDS = (Demand(PER_SAMPLE, most=0.6), Demand(ratio_to(BY_TORCH), least=15.0))
STREAM_DEMANDS = (Demand(ratio_to(BY_TORCH), least=15.0), Demand(ratio_to(BY_BRIAN2), least=10.0))

peer_process = load_file(Path(__file__).with_name("peer_process.py"))

# cython, which its other target needs, is one of its own requirements; a C++ compiler is the machine's
BRIAN2 = (("brian2==2.9.0", "numpy<2.4", "setuptools"), "reference_brian2.py")


def _read_in_order(weights: Any, places: Any) -> float:
    total, places_total = np.float32(0.0), np.uint64(0)
    sums = np.zeros(16, np.float32)
    for start in range(0, weights.size - 15, 16):
        for i in range(16):
            sums[i] += weights[start + i]
            places_total += places[start + i]
    for i in range(16):
        total += sums[i]
    return float(total + np.float32(places_total))


def _triad(out: Any, one: Any, other: Any) -> None:
    for i in range(out.size):
        out[i] = one[i] + np.float32(0.5) * other[i]


read_in_order: Any = numba.njit(error_model="numpy")(_read_in_order)
triad: Any = numba.njit(error_model="numpy")(_triad)


def values() -> dict[str, Floats]:
    """Weights and delays of the network, by name."""
    rng = np.random.default_rng(0)
    shapes = {"1": (HIDDEN, CHANNELS), "2": (HIDDEN, HIDDEN), "3": (OUTPUTS, HIDDEN)}
    found: dict[str, Floats] = {}
    for layer, shape in shapes.items():
        found[f"weight_{layer}"] = np.rint(rng.normal(0.0, WEIGHT_SPREADS[f"weight_{layer}"], shape) * 1024.0) / 1024.0
        found[f"delay_{layer}"] = rng.integers(0, MAX_DELAY, shape, endpoint=True).astype(float)
    return found


def spikes_in(batch: int, steps: int, quiet: int = 0) -> NDArray[np.float32]:
    """Inputs (batch, steps x channels), none in the last `quiet` steps."""
    drawn = np.random.default_rng(1).random((batch, steps, CHANNELS)) < INPUT_RATE
    drawn[:, steps - quiet :] = False
    return drawn.reshape(batch, -1).astype(np.float32)


def network(steps: int) -> SpikingNetwork:
    """Ours."""
    made = build(
        (steps * CHANNELS, HIDDEN, HIDDEN, OUTPUTS), chip=Key(0), steps=steps, max_delay=MAX_DELAY, leak=LEAK, output_leak=LEAK
    )
    made.attach(Ledger(), "chip")
    with made.ledger.phase("initialise"):
        made.program({name: Write(value) for name, value in values().items()}, key=Key(0))
    return made


def forward(made: SpikingNetwork, inputs: Any) -> Any:
    """Scores."""
    with made.ledger.phase("infer"):
        return made.forward(inputs, samples=np.arange(len(inputs)), key=Key(0))


def rasters(made: SpikingNetwork, inputs: Any) -> tuple[Any, ...]:
    """Spikes of both hidden layers, each (batch, steps, HIDDEN)."""
    with made.ledger.phase("infer"):
        return made.run(inputs, samples=np.arange(len(inputs)), key=Key(0)).spikes


def torch_network(inputs: Any) -> Callable[[], tuple[Any, Any, Any]]:
    """The same network as convolutions over time and a loop of neurons; returns scores and both rasters (batch, width, steps)."""
    import torch

    held = values()
    batch, steps = len(inputs), inputs.shape[1] // CHANNELS
    kernels = []
    for layer in ("1", "2", "3"):
        weight, delay = held[f"weight_{layer}"], held[f"delay_{layer}"].astype(int)
        kernel = np.zeros((*weight.shape, MAX_DELAY + 1), np.float32)
        np.put_along_axis(kernel, MAX_DELAY - delay[:, :, None], weight[:, :, None].astype(np.float32), axis=2)
        kernels.append(torch.from_numpy(kernel))
    given = torch.from_numpy(np.ascontiguousarray(inputs.reshape(batch, steps, CHANNELS).transpose(0, 2, 1)))

    def delayed(sent: Any, kernel: Any) -> Any:
        return torch.nn.functional.conv1d(torch.nn.functional.pad(sent, (MAX_DELAY, 0)), kernel)

    def fire(drive: Any) -> Any:
        v, spikes = torch.zeros_like(drive[:, :, 0]), torch.empty_like(drive)
        for t in range(drive.shape[2]):
            h = LEAK * v + drive[:, :, t]
            spikes[:, :, t] = h >= 1.0
            v = h * (1.0 - spikes[:, :, t])
        return spikes

    def run() -> tuple[Any, Any, Any]:
        with torch.no_grad():
            first = fire(delayed(given, kernels[0]))
            second = fire(delayed(first, kernels[1]))
            drive, v = delayed(second, kernels[2]), torch.zeros(batch, OUTPUTS)
            scores = torch.zeros(batch, OUTPUTS)
            for t in range(steps):
                v = LEAK * v + drive[:, :, t]
                scores += torch.softmax(v, dim=1)
            return scores, first, second

    return run


def best(call: Callable[[], object], rounds: int = 30) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def bandwidth() -> float:
    """Bytes per second of a triad in arrays far larger than any cache, with write-allocate."""
    arrays = [np.zeros(2**24, np.float32) for _ in range(3)]
    triad(*arrays)
    return 16.0 * 2**24 / best(lambda: triad(*arrays), 10)


class Scatter:
    """The events of one projection, ready for the kernel: `spread` puts each in its step, else all lie in one."""

    def __init__(self, layer: str, senders: Any, steps: Any, *, spread: bool) -> None:
        held = values()
        weight, delay = held[f"weight_{layer}"], held[f"delay_{layer}"].astype(np.int64)
        self.width = len(weight)
        self.weights = np.ascontiguousarray(weight.T, dtype=np.float32).reshape(-1)
        self.places = np.ascontiguousarray((delay * self.width + np.arange(self.width)[:, None]).T).reshape(-1).astype(np.uint16)
        self.senders = np.ascontiguousarray(senders, dtype=np.int64)
        self.rows = np.ascontiguousarray(steps if spread else np.zeros_like(steps), dtype=np.int64)
        self.amplitudes = np.ones(len(senders), np.float32)
        self.buffer = np.zeros((int(self.rows.max()) + MAX_DELAY + 1) * self.width, np.float32)

    @property
    def events(self) -> int:
        """Synaptic events."""
        return len(self.senders) * self.width

    def run(self) -> None:
        """Add them all."""
        count = len(self.senders)
        arguments = (self.weights, 0, self.places, 0, self.width, self.buffer)
        scatter_events(count, self.rows, self.senders, self.amplitudes, 2**31, *arguments)


def scatter_benchmark() -> Benchmark:
    """The kernel alone."""

    @cache
    def job() -> Scatter:
        steps, senders = np.nonzero(spikes_in(1, STEPS).reshape(STEPS, CHANNELS))
        return Scatter("1", senders, steps, spread=True)

    def by_numpy() -> Any:
        events, width = job(), job().width
        buffer = np.zeros_like(events.buffer)
        weights, places = events.weights.reshape(-1, width), events.places.reshape(-1, width)
        for row, sender in zip(events.rows, events.senders, strict=True):
            buffer[row * width + places[sender].astype(np.int64)] += weights[sender]  # all in different slots
        return buffer

    @cache
    def in_order() -> tuple[Any, Any]:
        events = job()
        chosen = (events.senders[:, None] * events.width + np.arange(events.width)).reshape(-1)
        return events.weights[chosen], events.places[chosen]

    def facts() -> dict[str, float]:
        events, per_second = job(), bandwidth()
        events.buffer[:] = 0.0
        events.run()
        difference = float(np.abs(events.buffer - by_numpy()).max())
        return {
            "difference from numpy": difference,
            EVENTS: events.events,
            "1e9 delayed synaptic events/s, best before the rounds": events.events / best(events.run, 300) / 1e9,
            "1e9 events/s that the bandwidth of memory allows, 6 bytes each": per_second / 6.0 / 1e9,
        }

    return Benchmark(
        name="spiking-scatter",
        ours=lambda: job().run(),
        references={"numpy": by_numpy},
        limit=lambda: read_in_order(*in_order()),
        facts=facts,
        tolerances={"difference from numpy": 0.0},
        demands=SCATTER_DEMANDS,
    )


def scatters(made: SpikingNetwork, inputs: Any) -> list[Scatter]:
    """All events of a network, layer by layer, each in one place."""
    first, second = rasters(made, inputs)
    given = inputs.reshape(len(inputs), -1, CHANNELS)
    found = []
    for layer, raster in (("1", given), ("2", first), ("3", second)):
        _, steps, senders = np.nonzero(raster)
        found.append(Scatter(layer, senders, steps, spread=False))
    return found


def network_benchmark(name: str, batch: int, steps: int, quiet: int, demands: Sequence[Demand], *, brian2: bool) -> Benchmark:
    """The whole network against torch, and against Brian2 too."""

    @cache
    def job() -> tuple[SpikingNetwork, Any]:
        return network(steps), spikes_in(batch, steps, quiet)

    @cache
    def events() -> list[Scatter]:
        return scatters(*job())

    @cache
    def by_torch() -> Callable[[], tuple[Any, Any, Any]]:
        return torch_network(job()[1])

    samples = batch * steps // STEPS

    def facts() -> dict[str, float]:
        scores, *theirs = (tensor.numpy() for tensor in by_torch()())
        ours = [raster.transpose(0, 2, 1) for raster in rasters(*job())]
        seconds = best(lambda: forward(*job()), 10)
        sent = sum(one.events for one in events())
        return {
            "spikes that differ from torch": sum(float(np.abs(a - b).sum()) for a, b in zip(ours, theirs, strict=True))
            / sum(float(one.sum()) for one in ours),
            "largest difference of scores from torch": float(np.abs(scores - forward(*job())).max()),
            "spike probability per step, first hidden layer": float(ours[0].mean()),
            "spike probability per step, second hidden layer": float(ours[1].mean()),
            "synaptic events per sample, 1e6": sent / samples / 1e6,
            "ms/sample, ours, best before the rounds": 1e3 * seconds / samples,
            "1e9 synaptic events/s, ours, whole network": sent / seconds / 1e9,
        }

    def limit() -> None:
        for one in events():
            one.run()

    alone = Benchmark(
        name=name,
        ours=lambda: forward(*job()),
        references={BY_TORCH: lambda: by_torch()()},
        limit=limit,
        facts=facts,
        samples=samples,
        tolerances={"spikes that differ from torch": LARGEST_DIFFERENCE},
        demands=demands,
    )
    return replace(alone, prepare=lambda: with_brian2(alone, job())) if brian2 else alone


def with_brian2(alone: Benchmark, job: tuple[SpikingNetwork, Any]) -> Benchmark:
    """The benchmark against Brian2 as well, where it can be had."""
    made, inputs = job
    requirements, script = BRIAN2
    steps, senders = np.nonzero(inputs.reshape(-1, CHANNELS))
    folder = tempfile.mkdtemp()  # the standalone program stays there while its process runs
    file = Path(folder) / "inputs.npz"
    held: dict[str, Any] = values()
    np.savez(file, steps=steps, senders=senders, leak=LEAK, total=inputs.shape[1] // CHANNELS, **held)
    try:
        peer = peer_process.PeerProcess("brian2", requirements, Path(__file__).with_name(script), {"inputs": str(file)})
    except peer_process.AbsentError as error:
        return replace(alone, prepare=None, absent={BY_BRIAN2: str(error)})

    def facts() -> dict[str, float]:
        ours = [raster[0].sum(axis=0) for raster in rasters(made, inputs)]
        peer.run()
        theirs = peer.ask(do="counts")
        seconds = min(peer.ask(do="loop") for _ in range(3))
        different = sum(float(np.abs(a.astype(int) - np.array(b)).sum()) for a, b in zip(ours, theirs, strict=True))
        return {
            **alone.facts(),
            "spikes that Brian2 counts otherwise": different / sum(float(one.sum()) for one in ours),
            "ms/sample, Brian2, its loop alone": 1e3 * seconds / alone.samples,
        }

    return replace(
        alone,
        prepare=None,
        references={BY_BRIAN2: peer.run, **alone.references},
        facts=facts,
        tolerances={**alone.tolerances, "spikes that Brian2 counts otherwise": LARGEST_DIFFERENCE},
    )


def benchmarks() -> Sequence[Benchmark]:
    """The kernel, samples in a batch, and one long one."""
    return [
        scatter_benchmark(),
        network_benchmark("spiking-network", BATCH, STEPS, 0, BATCH_DEMANDS, brian2=False),
        network_benchmark("spiking-stream", 1, LONG_STEPS, QUIET_STEPS, STREAM_DEMANDS, brian2=True),
    ]
