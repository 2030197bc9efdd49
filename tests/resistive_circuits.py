"""Small resistive networks in double precision, for several tests."""

from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import resistive_network
from inmaterio.simulators.capabilities import Array, Write
from inmaterio.simulators.resistive_network import ResistiveNetwork

KEY = Key(0)
WIDTHS = (5, 8, 6, 3)
DEEP = {"gain": 3.0}
TRANSFORMERS = {"gain": 3.0, "amplifier": "transformer"}


def network(widths: tuple[int, ...] = WIDTHS, seed: int = 0, **options: Any) -> ResistiveNetwork:
    """A network of drawn conductances, half of them 0 as the initialisation leaves them, and bias currents."""
    chip = resistive_network.build(widths, chip=Key(seed), **{"dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    requests = {}
    for name, parameter in chip.parameters.items():
        spread = 1.0 if name.startswith("weight") else 0.3
        requests[name] = Write(rng.uniform(-spread, spread, parameter.shape))
    with chip.ledger.phase("initialise"):
        chip.program(requests, key=KEY)
    return chip


def some_batch(chip: ResistiveNetwork, size: int = 4, seed: int = 7) -> Batch:
    """Inputs in [-1, 1], targets of the size of the outputs."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1.0, 1.0, (size, chip.ports["input"].size))
    return Batch(inputs, rng.uniform(-2.0, 2.0, (size, chip.ports["output"].size)), np.arange(size))


def settled_volts(chip: ResistiveNetwork, inputs: Array) -> list[Array]:
    """Free steady state of the substrate, in volts, each (batch, n_k)."""
    with chip.ledger.phase("evaluate"):
        settled = chip.settle(inputs, samples=np.arange(len(inputs)), key=KEY, tolerance=1e-15, steps=10_000)
    return [layer * chip.description.volts_per_output for layer in settled.states]
