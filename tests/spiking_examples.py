"""Small spiking networks with values whose sums do not depend on order, and this package's simulator of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.simulators.capabilities import Spikes, Write
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork

Float = NDArray[np.float64]


def dyadic_network(seed: int = 0, **options: Any) -> tuple[SpikingDescription, dict[str, Float], Float]:
    """6-12-10-4, weights and biases multiples of 2^-10, every delay from 0 to 6; and three samples of 30 steps."""
    defaults = {"steps": 30, "tail_steps": 5, "max_delay": 6, "dtype": "float64"}
    description = SpikingDescription((30 * 6, 12, 10, 4), **defaults | options)
    draw = np.random.default_rng(seed)
    values = {}
    for name, parameter in description.parameters().items():
        if "delay" in name:
            values[name] = draw.integers(0, description.max_delay + 1, parameter.shape).astype(float)
        else:
            mean, spread = (0.0, 0.05) if "bias" in name else (0.2, 0.3)
            values[name] = np.rint(draw.normal(mean, spread, parameter.shape) * 1024) / 1024
    return description, values, (draw.random((3, 180)) < 0.15).astype(float)


def run_here(description: SpikingDescription, values: dict[str, Float], inputs: Float) -> Spikes:
    """Spikes and membranes of this package's simulator."""
    return programmed(description, values)[1](inputs)


def programmed(description: SpikingDescription, values: dict[str, Float]) -> tuple[Ledger, Any]:
    """A ledger and what presents inputs to a chip that holds these values."""
    network, ledger = SpikingNetwork(description, Key(0)), Ledger()
    network.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        network.program({name: Write(value) for name, value in values.items()}, key=Key(1))

    def present(inputs: Float, membranes: bool = True) -> Spikes:
        with ledger.phase("infer"):
            return network.run(inputs, samples=np.arange(len(inputs)), key=Key(2), membranes=membranes)

    return ledger, present
