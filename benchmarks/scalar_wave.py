"""Scalar wave on 512 x 512 cells, float32, 500 steps, one source and one probe: within walls, and with an absorber.

A sample is a step, so that "ms/sample" is the time of one update of 262,144 cells. All contenders use the same scheme of second
order in space and time and the same map of speeds; the difference of their probes' traces, before any wave has come back from
an edge, is a fact that must be small. Where waves are absorbed, each does it in its own way in strips of 10 cells inside the
512: ours and deepwave by a matched layer, devito by damping.

The limit reads u^n, u^(n-1) and C and writes u^(n+1) for every cell and step, 16 bytes without any neighbour, in rows that a
core's own cache holds: who takes rows through several steps while they are there could be as fast as that, were there no more
arithmetic. Who goes through the whole maps once per step cannot be faster than the same stream in arrays of the maps' size, which
the facts give beside it, with a triad's bandwidth in both places.
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

from inmaterio.experiments.benchmark import Benchmark, load_file
from inmaterio.simulators.absorbers import Absorber
from inmaterio.simulators.scalar_wave import Grid, Medium, propagate

Floats = NDArray[np.float64]

SIZE = 512
STEPS = 500
CELLS = 10
SPACING_M, STEP_S, LARGEST_SPEED = 1.0, 0.4, 1.0
FREQUENCY_HZ = 0.05
SOURCE, PROBE = (256, 256), (256, 216)
LARGEST_DIFFERENCE = 1e-3
HELD_ROWS = 64
"""Rows of three maps that a core's own cache holds with room to spare: 384 KiB."""

peer_process = load_file(Path(__file__).with_name("peer_process.py"))

PEERS = {
    "devito": (("devito==4.8.23",), "reference_devito.py"),
    # torch as in constraints.txt: another version may come with gigabytes for a GPU
    "deepwave": (("deepwave==0.1.0", "numpy", "torch==2.13.0"), "reference_deepwave.py"),
}


def _triad(out: Any, one: Any, other: Any) -> None:
    for i in range(out.size):
        out[i] = one[i] + np.float32(0.5) * other[i]


def _stream(before: Any, now: Any, ratio: Any) -> None:
    for i in range(before.size):
        before[i] = now[i] - before[i] + ratio[i] * now[i]


triad: Any = numba.njit(error_model="numpy")(_triad)
stream: Any = numba.njit(error_model="numpy")(_stream)


def speed_map() -> Floats:
    """Smooth, between 0.8 and 1 m/s."""
    i, j = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    return np.asarray(LARGEST_SPEED * (0.9 + 0.1 * np.sin(2.0 * np.pi * i / 64.0) * np.cos(2.0 * np.pi * j / 80.0)))


def burst() -> Floats:
    """A tone of `FREQUENCY_HZ` that swells and fades."""
    t = STEP_S * np.arange(STEPS) - 3.0 / FREQUENCY_HZ
    return np.asarray(np.sin(2.0 * np.pi * FREQUENCY_HZ * t) * np.exp(-0.5 * (FREQUENCY_HZ * t) ** 2))


def devito_damping(cells: int) -> Floats:
    """Damping 2 b (rows, columns) for devito, growing with the square of depth; zero without an absorber."""
    depth = np.maximum(0.0, cells - np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1]))
    grown = (depth / max(cells, 1)) ** 2
    return np.asarray(0.6 * (grown[:, None] + grown[None, :]))


def best(call: Callable[[], object], rounds: int = 30) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def bytes_per_s(work: Any, maps: tuple[Any, Any, Any]) -> float:
    """What `triad` or `stream` moves: per element two are read that it leaves alone, one is read (or allocated) and written."""
    work(*maps)
    return float(16 * maps[0].size) / best(lambda: work(*maps), 300)


def numpy_trace(speed: Floats, source: Floats) -> Floats:
    """The scheme in numpy, double precision, within walls."""
    ratio = (speed * STEP_S / SPACING_M) ** 2
    fields = np.zeros((2, SIZE + 2, SIZE + 2))
    trace = np.empty(STEPS)
    for n in range(STEPS):
        now, out = fields[n % 2], fields[1 - n % 2]
        sides = now[:-2, 1:-1] + now[2:, 1:-1] + now[1:-1, :-2] + now[1:-1, 2:]
        out[1:-1, 1:-1] = 2.0 * now[1:-1, 1:-1] - out[1:-1, 1:-1] + ratio * (sides - 4.0 * now[1:-1, 1:-1])
        out[SOURCE[0] + 1, SOURCE[1] + 1] += ratio[SOURCE] * SPACING_M**2 * source[n]
        trace[n] = out[PROBE[0] + 1, PROBE[1] + 1]
    return trace


def difference(trace: Any, expected: Floats) -> float:
    """Largest difference of two traces over the largest value, as far as the first goes."""
    return float(np.abs(np.asarray(trace, dtype=np.float64) - expected[: len(trace)]).max() / np.abs(expected).max())


def define(name: str, absorber: Absorber) -> Benchmark:
    """The benchmark without peers, which are added when it is measured."""
    speed, source = speed_map(), burst()
    medium = Medium(Grid((SIZE, SIZE), SPACING_M, STEP_S), speed, absorber=absorber, dtype="float32")
    driven = source[None, None].astype(np.float32)

    def ours() -> Any:
        return propagate(medium, driven, [SOURCE], [PROBE]).traces[0, 0]

    @cache
    def arrays() -> tuple[Any, Any, Any]:
        generator = np.random.default_rng(0)
        one, other, third = (generator.uniform(0.0, 0.2, SIZE * SIZE).astype(np.float32) for _ in range(3))
        return one, other, third

    def limit() -> None:
        before, now, ratio = (one[: HELD_ROWS * SIZE] for one in arrays())
        for _ in range(STEPS * SIZE // HELD_ROWS):
            stream(before, now, ratio)

    @cache
    def exact() -> Floats:
        return numpy_trace(speed, source)

    def facts() -> dict[str, float]:
        places = {"arrays of this size": arrays(), f"{HELD_ROWS} rows": tuple(one[: HELD_ROWS * SIZE] for one in arrays())}
        updates = float(SIZE * SIZE * STEPS)
        ours()
        found = {
            "difference from numpy in double precision": difference(ours(), exact()),
            "1e9 cell updates/s, ours, best before the rounds": updates / best(ours, 20) / 1e9,
        }
        for where, maps in places.items():
            triad_bytes, stream_bytes = bytes_per_s(triad, maps), bytes_per_s(stream, maps)
            found[f"GB/s of a triad in {where}, with write-allocate"] = triad_bytes / 1e9
            found[f"1e9 cell updates/s that a triad's bandwidth allows, in {where}"] = triad_bytes / 16e9
            found[f"1e9 cell updates/s of the stream, in {where}"] = stream_bytes / 16e9
        return found

    alone = Benchmark(
        name=name,
        ours=ours,
        references={"numpy": lambda: numpy_trace(speed, source)},
        limit=limit,
        facts=facts,
        samples=STEPS,
        tolerances={"difference from numpy in double precision": LARGEST_DIFFERENCE},
    )
    return replace(alone, prepare=lambda: with_peers(alone, absorber.cells, speed, source, exact()))


def with_peers(alone: Benchmark, cells: int, speed: Floats, source: Floats, expected: Floats) -> Benchmark:
    """The benchmark against those peers that can be had; against numpy when there is none."""
    running: dict[str, Any] = {}
    absent = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(
            inputs,
            speed=speed,
            source=source,
            spacing=SPACING_M,
            step=STEP_S,
            frequency=FREQUENCY_HZ,
            source_cell=np.array(SOURCE),
            probe_cell=np.array(PROBE),
            damping=devito_damping(cells),
        )
        for name, (requirements, script) in PEERS.items():
            job = {"inputs": str(inputs), "absorbing_cells": cells}
            try:
                running[name] = peer_process.PeerProcess(name, requirements, Path(__file__).with_name(script), job)
            except peer_process.AbsentError as error:
                absent[name] = str(error)
    if not running:
        return replace(alone, prepare=None, absent=absent)

    def facts() -> dict[str, float]:
        differences = {f"difference of {name}": difference(peer.ask(do="trace"), expected) for name, peer in running.items()}
        return {**alone.facts(), **differences}

    return replace(
        alone,
        prepare=None,
        references={name: peer.run for name, peer in running.items()},
        facts=facts,
        tolerances={**alone.tolerances, **{f"difference of {name}": LARGEST_DIFFERENCE for name in running}},
        absent=absent,
    )


def benchmarks() -> Sequence[Benchmark]:
    """Within walls, and with a matched layer."""
    return [define("scalar-wave", Absorber("none")), define("scalar-wave-absorbed", Absorber("cpml", CELLS))]
