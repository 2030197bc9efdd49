"""Physical networks: gradients against finite differences and each other, ablations, counts, snapshots, bad input."""

from typing import Any

import numpy as np
import pytest
from doubles.random_medium import RandomMedium, network

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators.capabilities import Outer, Write
from inmaterio.simulators.digital_twin import loss_and_gradient, twin_gradient
from inmaterio.simulators.physical_network import Options, PhysicalNetwork

WIDTHS = (6, 8, 3)
ROWS = np.arange(40)
INPUTS = np.random.default_rng(0).uniform(-1, 1, (40, 6))
TARGETS = np.eye(3)[ROWS % 3]

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tunable": {"tunable": 5},
    "skip": {"skip": True},
    "positive": {"response": "positive"},
    "identity": {"response": "identity", "labels": False},
    "no-physics": {"ablation": "no-physics", "response": "identity"},
    "linear-physics": {"ablation": "linear-physics"},
}


def made(**options: Any) -> tuple[PhysicalNetwork, Ledger]:
    """A network with its first values, calibrated."""
    net, ledger = network(WIDTHS, **{"twin_pairs": 400, "twin_epochs": 10, **options}), Ledger()
    net.attach(ledger, "substrate")
    values = initial_values(net.parameters, key=Key(0), gain=1.0)
    rng = np.random.default_rng(5)
    values |= {name: rng.uniform(-0.5, 0.5, one.shape) for name, one in net.parameters.items() if not one.digital}
    with ledger.phase("initialise"):
        net.program({name: Write(one) for name, one in values.items()}, key=Key(0))
        net.calibrate(INPUTS, ROWS, Key(1))
    return net, ledger


def loss_of(net: PhysicalNetwork, changes: dict[str, np.ndarray]) -> float:
    outputs = net.perturbed(INPUTS, changes, samples=ROWS, key=Key(3))
    return loss_and_gradient("mse", outputs, TARGETS, net.ports["output"])[0]


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_exact_gradient_adjoint_experiment_and_finite_differences_agree(options: dict[str, Any]) -> None:
    net, ledger = made(**options)
    exact = net.oracle().loss_gradient(INPUTS, TARGETS, "mse")
    assert set(exact) == set(net.parameters)
    rng = np.random.default_rng(1)
    with ledger.phase("train"):
        outputs = net.forward(INPUTS, samples=ROWS, key=Key(2))
        assert net.oracle().outputs(INPUTS) == pytest.approx(outputs, rel=1e-12)
        _, gradient = loss_and_gradient("mse", outputs, TARGETS, net.ports["output"])
        measured = net.adjoint(INPUTS, gradient, samples=ROWS, key=Key(3)).parameters
        for name, one in net.parameters.items():
            found = measured[name]
            dense = found.dense() if isinstance(found, Outer) else found
            assert dense == pytest.approx(exact[name], rel=1e-9, abs=1e-12), name
            direction = rng.normal(size=one.shape)
            errors = []
            for step in (1e-4, 1e-5):
                change = {name: step * direction}, {name: -step * direction}
                slope = (loss_of(net, change[0]) - loss_of(net, change[1])) / (2 * step)
                errors.append(abs(slope - float(np.sum(direction * exact[name]))))
            # second order: a hundredth, unless rounding comes first; the steps are small enough to cross no kink
            assert errors[1] < max(errors[0] / 50, 1e-9), (name, errors)


def test_twin_at_measured_states_has_their_outputs_and_nearly_the_exact_gradient() -> None:
    net, ledger = made(tunable=5, twin_pairs=3000, twin_epochs=100)
    with ledger.phase("train"):
        states = net.states(INPUTS, samples=ROWS, key=Key(2))
        twin = net.twin()
        _, outputs, found = twin_gradient(twin, net.parameters, INPUTS, TARGETS, "mse", net.ports["output"], states)
    assert outputs == pytest.approx(states[-1], rel=1e-12)  # the physics' own, whatever the twin says
    exact = net.oracle().loss_gradient(INPUTS, TARGETS, "mse")
    for name in net.parameters:
        cosine = float(np.vdot(found[name], exact[name]) / np.linalg.norm(found[name]) / np.linalg.norm(exact[name]))
        assert cosine > (1 - 1e-12 if name in ("weight_2", "bias_2") else 0.7), (name, cosine)
    assert min(net.fidelity) > 0.9


def test_the_twin_of_an_ablated_network_is_exact() -> None:
    for ablation in ("no-physics", "linear-physics"):
        net, ledger = made(ablation=ablation)
        with ledger.phase("train"):
            twin = net.twin()
        _, _, found = twin_gradient(twin, net.parameters, INPUTS, TARGETS, "mse", net.ports["output"])
        exact = net.oracle().loss_gradient(INPUTS, TARGETS, "mse")
        for name in net.parameters:
            assert found[name] == pytest.approx(exact[name], rel=1e-9, abs=1e-12)


def test_the_linear_map_that_stands_in_is_the_best_one() -> None:
    """No other affine map of the drives comes nearer to the responses it was fitted to: what is left is orthogonal to them."""
    rows = np.arange(400)
    inputs = np.random.default_rng(3).uniform(-1, 1, (400, 6))
    net, ledger = network(WIDTHS, ablation="linear-physics"), Ledger()
    net.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        net.calibrate(inputs, rows, Key(1))
    layer = net._layers[0]
    drive, kept = layer._pool, int(0.8 * 400)
    order = Key(1).at("layer", 1).at("linear").at("order").generator().permutation(400)[:kept]
    fitted, measured = np.c_[drive, np.ones(400)][order], layer.block.oracle().outputs(drive)[order]
    best = np.sum((fitted @ np.linalg.lstsq(fitted, measured, rcond=None)[0] - measured) ** 2)
    assert np.sum((layer.fitted().respond(drive[order]) - measured) ** 2) == pytest.approx(best, rel=1e-6)
    assert ledger.total("device_pass", "initialise") == 2 * 400  # the calibration's own pairs: no further pass


def test_what_stands_in_has_as_many_parameters_and_is_z_scored_likewise() -> None:
    counts = set()
    for ablation in ("none", "no-physics", "linear-physics"):
        net, ledger = made(ablation=ablation, detectors=0)
        counts.add(sum(int(np.prod(one.shape)) for one in net.parameters.values()))
        with ledger.phase("infer"):
            features = net.layers(INPUTS, samples=ROWS, key=Key(2))[0].features[:, :6]
        if ablation == "no-physics":
            assert features == pytest.approx((INPUTS - INPUTS.mean(axis=0)) / INPUTS.std(axis=0))
    assert counts == {8 * 9 + 8 + 3 * 8 + 3}


def test_each_seed_identifies_with_pairs_of_its_own() -> None:
    fidelities = set()
    for seed in (1, 2):
        net, ledger = network(WIDTHS, twin_pairs=100, twin_epochs=2), Ledger()
        net.attach(ledger, "substrate")
        with ledger.phase("train"):
            net.calibrate(INPUTS, ROWS, Key(seed))
            net.twin()
        fidelities |= set(net.fidelity)
    assert len(fidelities) == 4


def test_passes_conversions_and_macs_are_counted_exactly() -> None:
    net, ledger = made(skip=True, detectors=16)
    before = dict(ledger.events.items())
    with ledger.phase("infer"):
        net.forward(INPUTS, samples=ROWS, key=Key(2))
    assert ledger.total("device_pass", "infer") == 2 * 40
    assert ledger.total("sample", "infer") == 40
    found = {key[2:]: amount for key, amount in ledger.events.items() if key not in before}
    assert found["input DAC", "dac_conversion_ideal"] == 40 * (9 + 8)
    assert found["detector ADC", "adc_conversion_ideal"] == 40 * (16 + 16)
    # map, z-scores, and in front of layer 2 the squares of 8 outputs
    assert found["map 1", "mac_fp32"] == 40 * (8 * (16 + 9) + 16 + 8)
    assert found["map 2", "mac_fp32"] == 40 * (3 * (16 + 8) + 16)
    with ledger.phase("evaluate"):
        net.layers(INPUTS, samples=ROWS, key=Key(2), depth=1)
    assert ledger.total("device_pass", "evaluate") == 40


def test_labels_reach_the_first_drive_and_candidates_of_a_sample_count_once() -> None:
    net, ledger = made()
    labels = np.eye(3)[ROWS % 3]
    with ledger.phase("infer"):
        plain = net.layers(INPUTS, samples=ROWS, key=Key(2))
        told = net.layers(INPUTS, samples=ROWS, key=Key(2), labels=labels)
        net.layers(np.repeat(INPUTS, 3, 0), samples=np.repeat(ROWS, 3), key=Key(2), labels=np.tile(np.eye(3), (40, 1)))
    assert np.abs(plain[0].outputs - told[0].outputs).max() > 0.1
    assert ledger.total("sample", "infer") == 3 * 40
    with pytest.raises(InputError, match="labels is 2 at"):
        net.layers(INPUTS, samples=ROWS, key=Key(2), labels=2 * labels)


@pytest.mark.parametrize("options", [{}, {"tunable": 3}, {"ablation": "linear-physics"}], ids=("plain", "tunable", "linear"))
def test_a_snapshot_brings_back_every_bit_after_a_knock(options: dict[str, Any]) -> None:
    net, ledger = made(**options)
    with ledger.phase("evaluate"):
        if not options.get("ablation"):
            net.identify(key=Key(4))
        before, kept, twin = net.forward(INPUTS, samples=ROWS, key=Key(2)), net.snapshot(), net.twin().state_dict()
        net.disturb(0.5, Key(9))
        if not options.get("ablation"):
            assert np.abs(net.forward(INPUTS, samples=ROWS, key=Key(2)) - before).max() > 0.05
            net.identify(key=Key(8))
        net.restore(kept)
        assert np.array_equal(net.forward(INPUTS, samples=ROWS, key=Key(2)), before)
        assert all(np.array_equal(twin[name], value) for name, value in net.twin().state_dict().items())


def test_what_it_offers_follows_its_physics() -> None:
    assert "mapped" in network(WIDTHS).traits
    assert "mapped" not in network(WIDTHS, tunable=2).traits
    assert "Adjoint" in network(WIDTHS).capabilities
    assert "Adjoint" not in network(WIDTHS, adjoint=False).capabilities
    assert "Adjoint" in network(WIDTHS, adjoint=False, ablation="no-physics").capabilities
    assert "InjectLabel" not in network(WIDTHS, labels=False).capabilities


def test_bad_input_is_refused_in_one_line() -> None:
    net, _ = made()
    for call, words in (
        (lambda: net.layers(INPUTS, samples=ROWS, key=Key(0), depth=3), "depth is 3 layers"),
        (lambda: net.inject(INPUTS, (np.zeros((40, 8)),), samples=ROWS, key=Key(0)), "1 arrays of offsets; expected 2"),
        (lambda: net.perturbed(INPUTS, {"weight_3": np.zeros(3)}, samples=ROWS, key=Key(0)), "unknown parameter 'weight_3'"),
        (lambda: net.program({"weight_1": Write(np.zeros((2, 2)))}, key=Key(0)), "weight_1 has shape"),
        (lambda: network(WIDTHS, ablation="linear-physics").twin(), "calibrate the network first"),
        (lambda: network(WIDTHS, adjoint=False).adjoint(INPUTS, TARGETS, samples=ROWS, key=Key(0)), "lacks capability Adjoint"),
        (lambda: Options(physics="ether"), "unknown physics 'ether'"),
        (lambda: PhysicalNetwork([], WIDTHS, Options()), "0 physical systems; expected 2"),
        (lambda: PhysicalNetwork([RandomMedium((5, 4), Key(0))] * 2, WIDTHS, Options()), "takes 5 inputs; expected 9"),
    ):
        with pytest.raises(InputError, match=words):
            call()
