"""Backpropagation through a spiking chip's twin leaves whole delays alone, decay of weights or not."""

from pathlib import Path

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.assembly import first_values
from inmaterio.experiments.checkpoint import load_tree
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import read_run
from inmaterio.learning_rules import backpropagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators import normalised_spiking_network, spiking_network
from inmaterio.simulators.digital_twin import differentiable


@pytest.mark.parametrize("module", [spiking_network, normalised_spiking_network])
@pytest.mark.parametrize("delays", ["synaptic", "axonal", "none"])
def test_delays_have_no_estimate(module, delays: str) -> None:
    network = module.build((10 * 3, 4, 2), chip=Key(0), steps=10, max_delay=5, recurrent=True, delays=delays)
    network.attach(Ledger(), "substrate")
    rule = backpropagation.build(substrate=network)
    inputs = (np.random.default_rng(0).random((6, 30)) < 0.3).astype(float)
    with network.ledger.phase("train"):
        found = rule.update(rule.init(Key(0)), Batch(inputs, np.eye(2)[[0, 1] * 3], np.arange(6)), Key(0)).estimates
    assert set(found) == {name for name in network.parameters if "delay" not in name}
    twin = network.twin()
    assert set(differentiable(twin, network.parameters)) == set(found)
    twin.use_gaussian(1.0)
    assert set(differentiable(twin, network.parameters)) == set(network.parameters)


@pytest.mark.parametrize("placement", ["chip", "twin-deployed"])
def test_delays_stay_where_weights_decay(placement: str, tmp_path: Path) -> None:
    """Adam makes a step of the learning rate of whatever gradient there is, and that of a decay is one."""
    config = RunConfig(
        data=DataConfig("coincidence?rows=80&steps=30&gap=4", train_limit=40, test_limit=20),
        substrate=SubstrateConfig("spiking-ideal", (6,), {"max_delay": 6, "tail_steps": 6}),
        rule=RuleConfig("backpropagation", {}),
        training=TrainingConfig(epochs=2, optimiser="adam", weight_decay=1e-3, placement=placement, probe_epochs=()),
    )
    folder = run(config, tmp_path)
    chip = spiking_network.build((90, 6, 2), chip=Key(0), steps=30, max_delay=6, tail_steps=6)
    begun = first_values(config, chip.parameters)
    kept = load_tree(folder / "state.npz")["substrates"]
    ended = {name: value for one in kept.values() for name, value in one.items()}
    for kind, stays in (("delay_1", True), ("weight_1", False)):
        found = ended[f"{kind}|requested"] if f"{kind}|requested" in ended else ended[kind]
        assert np.array_equal(found.astype(np.float32), begun[kind].astype(np.float32)) == stays
    trained = read_run(folder)[1].attrs["trained_physical"] + read_run(folder)[1].attrs["trained_digital"]
    assert trained == 3 * 6 + 6 * 2 + 6 + 2
