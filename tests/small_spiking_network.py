"""Small spiking networks in float64 with known values, in which every layer spikes, and a batch for them."""

from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.learning_rules.contract import Batch, Rule
from inmaterio.simulators.capabilities import Spikes, Write
from inmaterio.simulators.measurable import Measurable
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_network import SpikingNetwork

STEPS, CHANNELS = 14, 5


def make(hidden: tuple[int, ...] = (6, 5), **options: Any) -> tuple[SpikingNetwork, dict[str, np.ndarray], Batch]:
    """A network, what it holds, and four samples."""
    chosen = {"steps": STEPS, "tail_steps": 3, "max_delay": 4, "leak": 0.8, "output_leak": 0.7, "dtype": "float64", **options}
    description = SpikingDescription((STEPS * CHANNELS, *hidden, 3), **chosen)
    network, rng = SpikingNetwork(description, Key(0, ("chip",))), np.random.default_rng(7)
    values = {}
    for name, one in description.parameters().items():
        if "delay" in name:
            values[name] = rng.integers(0, description.max_delay + 1, one.shape).astype(float)
        elif name.startswith("bias"):
            values[name] = rng.uniform(0.0, 0.3, one.shape)
        else:
            values[name] = rng.normal(0.3, 0.5, one.shape)
    with network.ledger.phase("initialise"):
        network.program({name: Write(value) for name, value in values.items()}, key=Key(0))
    inputs = (rng.random((4, STEPS * CHANNELS)) < 0.25).astype(float)
    inputs[0, 3] = 2.0  # two spikes in one step
    batch = Batch(inputs, np.eye(3)[[0, 2, 1, 0]], np.array([5, 0, 9, 2]))
    return network, values, batch


def spikes_of(network: Any, batch: Batch) -> Spikes:
    """What a batch makes the network do."""
    with network.ledger.phase("evaluate"):
        return network.run(batch.inputs, samples=batch.samples, key=Key(0), membranes=True)


def update(network: Any, rule_file: Any, batch: Batch, *, key: int = 1, state: Any = None, **hyper: Any) -> Any:
    """One update of a rule, of what can be measured alone."""
    rule: Rule = rule_file.build(substrate=Measurable(network), **hyper)
    with network.ledger.phase("train"):
        return rule.update(rule.init(Key(3)) if state is None else state, batch, Key(key))


def check_alike(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float = 1e-9) -> None:
    """Every estimate equals the wanted one, relative to its largest element, and there is something to compare."""
    assert found
    for name, one in found.items():
        assert np.any(wanted[name] != 0.0), name
        error = np.max(np.abs(one - wanted[name])) / np.max(np.abs(wanted[name]))
        assert error < tolerance, (name, error)
