"""Makes brian2_spikes.npz: the spikes of 700-256-256-20 with a delay per synapse, as Brian2 computes them.

    python tests/golden/make_brian2_spikes.py [numpy|cython|cpp_standalone]

float64, leak 0.9, hard reset at h >= 1, delays 0..24, 100 steps, two samples at 1.5 % input. Weights are multiples of 2^-10, so
that sums of weights are exact in any order and a spike train can be compared bit by bit. The network comes from raw words of
Philox, which no version of numpy may change, so only spikes are kept. The last layer spikes too (readout ``spike-count``).
"""

import hashlib
import importlib.metadata
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.brian2_backend import run_in_brian2
from inmaterio.simulators.spiking_description import SpikingDescription

FILE = Path(__file__).with_name("brian2_spikes.npz")
SAMPLES, STEPS, CHANNELS, MAX_DELAY = 2, 100, 700, 24
SPREAD = {1: 260, 2: 260, 3: 200}
"""Weights of layer k are uniform in (-SPREAD, SPREAD] / 1024, plus MEAN / 1024."""
MEAN = {1: 10, 2: 0, 3: 10}

DESCRIPTION = SpikingDescription(
    (STEPS * CHANNELS, 256, 256, 20),
    steps=STEPS,
    max_delay=MAX_DELAY,
    leak=0.9,
    output_leak=0.9,
    readout="spike-count",
    dtype="float64",
)


def network() -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Values of every parameter, and inputs (samples, steps * channels)."""
    values = {}
    for place, (name, parameter) in enumerate(DESCRIPTION.parameters().items()):
        kind, _, layer = name.rpartition("_")
        # the upper 32 bits, as whole numbers
        words = (np.random.Philox(key=place).random_raw(int(np.prod(parameter.shape))) >> np.uint64(32)).astype(np.int64)
        words = words.reshape(parameter.shape)
        if kind == "weight":
            spread = SPREAD[int(layer)]
            values[name] = (words % (2 * spread) - spread + 1 + MEAN[int(layer)]) / 1024
        elif kind == "delay":
            values[name] = (words % (MAX_DELAY + 1)).astype(np.float64)
        else:
            values[name] = np.zeros(parameter.shape)
    words = np.random.Philox(key=1000).random_raw(SAMPLES * STEPS * CHANNELS) >> np.uint64(32)
    return values, (words.reshape(SAMPLES, -1) % np.uint64(1000) < 15).astype(np.float64)


def digest() -> str:
    """SHA-256 of the network and its inputs: whether the file belongs to them."""
    values, inputs = network()
    return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in (*values.values(), inputs))).hexdigest()


def make(target: str = "cython") -> dict[str, NDArray[np.uint8]]:
    """Spikes (samples, steps, width) of each layer by ``layer_k``."""
    values, inputs = network()
    shown = run_in_brian2(DESCRIPTION, values, inputs, target=target)
    return {f"layer_{k}": train for k, train in enumerate(shown.spikes, start=1)}


def load() -> dict[str, NDArray[np.uint8]]:
    """What `make` gave when the file was made."""
    with np.load(FILE) as kept:
        if str(kept["network_sha256"]) != digest():
            raise ValueError(f"{FILE} belongs to another network; make it again with {__file__}")
        return {
            f"layer_{k}": np.unpackbits(kept[f"layer_{k}"], axis=2, count=width)
            for k, width in enumerate(DESCRIPTION.widths[1:], start=1)
        }


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "cython"
    trains = make(target)
    packed = {name: np.packbits(train, axis=2) for name, train in trains.items()}
    made_by = f"brian2 {importlib.metadata.version('brian2')}, target {target}, numpy {np.__version__}"
    np.savez_compressed(FILE, network_sha256=digest(), made_by=made_by, **packed)  # type: ignore[arg-type]
    print(f"{FILE}: {made_by}; spikes {', '.join(str(int(train.sum())) for train in trains.values())}")


if __name__ == "__main__":
    main()
