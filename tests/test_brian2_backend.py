"""The same spiking networks in Brian2, an engine that was written by others."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from engine_packages import require_package
from golden import make_brian2_spikes
from spiking_examples import dyadic_network, programmed, run_here

from inmaterio.devices.validation import InputError
from inmaterio.simulators.brian2_backend import brian2_network, read_brian2, run_in_brian2
from inmaterio.simulators.spiking_description import SpikingDescription

# Brian2 2.9 uses names of pyparsing that go away.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning")


@pytest.fixture
def brian2() -> Iterator[Any]:
    """The package, compiling nothing."""
    require_package("brian2")
    package = importlib.import_module("brian2")
    before = package.prefs["codegen.target"]
    package.prefs["codegen.target"] = "numpy"
    yield package
    package.prefs["codegen.target"] = before


def test_the_reference_network_spikes_as_in_brian2() -> None:
    """700-256-256-20, a delay per synapse: every spike of the file that Brian2 made, and none besides."""
    wanted = make_brian2_spikes.load()
    assert all(wanted[name].sum() >= least for name, least in (("layer_1", 500), ("layer_2", 200), ("layer_3", 10)))
    values, inputs = make_brian2_spikes.network()
    found = programmed(make_brian2_spikes.DESCRIPTION, values)[1](inputs, membranes=False)
    for name, train in zip(wanted, found.spikes, strict=True):
        np.testing.assert_array_equal(train, wanted[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.parametrize("target", ["numpy", "cython"])
def test_the_file_can_be_made_again(brian2: Any, target: str) -> None:
    wanted = make_brian2_spikes.load()
    for name, train in make_brian2_spikes.make(target).items():
        np.testing.assert_array_equal(train, wanted[name], err_msg=name)


CASES: list[dict[str, Any]] = [
    {},
    {"delays": "axonal", "recurrent": True, "reset": "soft", "refractory_steps": 2, "strict": True},
    {"delays": "none", "readout": "spike-count", "leak": 0.75},
    {"recurrent": True, "readout": "mean-membrane", "threshold": 1.25, "output_leak": 0.5},
    {"refractory_steps": 1, "decay_bits": 5, "weight_bits": 12, "weight_max": 2047 / 1024, "delay_resolution": 2},
    {"dtype": "float32", "leak": 0.75},
]


@pytest.mark.engines
@pytest.mark.parametrize("options", CASES)
def test_small_networks_agree_to_the_bit(brian2: Any, options: dict[str, Any]) -> None:
    description, values, inputs = dyadic_network(**options)
    if description.delay_resolution == 2:
        values |= {name: value // 2 * 2 for name, value in values.items() if "delay" in name}
    here, there = run_here(description, values, inputs), run_in_brian2(description, values, inputs, membranes=True)
    assert len(here.spikes) == len(there.spikes) == len(description.widths) - 2 + description.spiking_outputs
    for k, (own, other) in enumerate(zip(here.spikes, there.spikes, strict=True), start=1):
        assert own.sum() > 10
        np.testing.assert_array_equal(own, other, err_msg=f"layer {k}")
    for k, (own, other) in enumerate(zip(here.membranes, there.membranes, strict=True), start=1):
        np.testing.assert_array_equal(own, other, err_msg=f"layer {k}")
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-6 if options.get("dtype") else 1e-12)


@pytest.mark.engines
def test_amplitudes_multiply_weights(brian2: Any) -> None:
    description, values, inputs = dyadic_network()
    inputs = inputs * np.random.default_rng(5).integers(1, 4, inputs.shape)
    here, there = run_here(description, values, inputs), run_in_brian2(description, values, inputs)
    assert inputs.max() == 3 and there.membranes == ()
    for own, other in zip(here.spikes, there.spikes, strict=True):
        np.testing.assert_array_equal(own, other)


def one_synapse(delay: float, **options: Any) -> tuple[SpikingDescription, dict[str, Any], Any]:
    """A channel that spikes in step 3, a delay, a neuron, a readout."""
    description = SpikingDescription(
        (80, 1, 1), steps=80, max_delay=62, leak=0.0, output_leak=0.0, readout="spike-count", dtype="float64", **options
    )
    one = np.ones((1, 1))
    values = {"weight_1": one, "delay_1": delay * one, "weight_2": one, "delay_2": 0 * one}
    return description, values, np.eye(80)[3:4]


@pytest.mark.engines
@pytest.mark.parametrize("delay", [0, 1, 24, 62])
def test_the_step_between_layers_is_taken_out(brian2: Any, delay: int) -> None:
    description, values, inputs = one_synapse(delay)
    built = brian2_network(description, values, inputs)
    built.network.run(built.duration)
    # Brian2 delivers after its neurons were updated: a step later per layer
    steps = [np.rint(np.asarray(monitor.t / built.network_dt)) for monitor in built.spikes]
    assert [list(one) for one in steps] == [[3 + delay + 1], [3 + delay + 2]]
    for train in read_brian2(built).spikes:
        assert list(np.nonzero(train[0, :, 0])[0]) == [3 + delay]


@pytest.mark.engines
def test_a_spike_that_comes_after_the_end_is_lost_and_samples_do_not_meet(brian2: Any) -> None:
    description, values, _ = one_synapse(62)
    late, empty = np.eye(80)[18:19], np.zeros((1, 80))
    found = run_in_brian2(description, values, np.concatenate((late, empty, late)))
    assert [train.sum() for train in found.spikes] == [0, 0]


@pytest.mark.engines
def test_users_go_on_with_its_objects(brian2: Any) -> None:
    description, values, inputs = dyadic_network()
    built = brian2_network(description, values, inputs, membranes=True)
    built.layers[0].limit[0] = 1e9
    built.network.run(built.duration)
    shown = read_brian2(built)
    assert shown.spikes[0][:, :, 0].sum() == 0 and shown.spikes[0].sum() > 0
    assert len(built.synapses) == 3 and len(shown.membranes) == 3


@pytest.mark.engines
def test_preferences_are_put_back(brian2: Any) -> None:
    names = ("codegen.target", "codegen.cpp.extra_compile_args_gcc", "core.default_float_dtype")
    brian2.prefs["codegen.target"] = "cython"
    before = [brian2.prefs[name] for name in names]
    run_in_brian2(*one_synapse(0))
    assert [brian2.prefs[name] for name in names] == before
    assert type(brian2.get_device()).__name__ == "RuntimeDevice"


@pytest.mark.slow
@pytest.mark.engines
def test_a_program_of_its_own_agrees(brian2: Any) -> None:
    description, values, inputs = dyadic_network(recurrent=True)
    here = run_here(description, values, inputs)
    there = run_in_brian2(description, values, inputs, membranes=True, target="cpp_standalone")
    for own, other in zip(here.spikes + here.membranes, there.spikes + there.membranes, strict=True):
        np.testing.assert_array_equal(own, other)
    assert type(brian2.get_device()).__name__ == "RuntimeDevice"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spike_drop": 0.1}, "spike_drop is 0.1, which Brian2 has no counterpart for"),
        ({"spike_jitter": 0.5}, "spike_jitter is 0.5"),
        ({"link_capacity": 3}, "link_capacity is 3"),
        ({"stuck_fraction": 0.1}, "stuck_fraction is 0.1"),
        ({"tau_mismatch": 0.1}, "tau_mismatch is 0.1"),
        ({"threshold_mismatch": 0.2}, "threshold_mismatch is 0.2"),
        ({"gain_mismatch": 0.3}, "gain_mismatch is 0.3"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_in_brian2(*one_synapse(1, **options))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delay_1": np.full((1, 1), 63.0)}, r"delay_1 is 63 step at \(0, 0\); expected at most 62 step"),
        ({"delay_1": np.full((1, 1), -1.0)}, r"delay_1 is -1 step at \(0, 0\); expected at least 0 step"),
        ({"delay_1": np.full((1, 1), 0.5)}, r"delay_1 is 0.5 at \(0, 0\); expected a multiple of 1 steps"),
        ({"weight_1": np.ones((2, 1))}, r"weight_1 has shape \(2, 1\); expected \(1, 1\)"),
        ({"weight_3": np.ones((1, 1))}, "unknown parameter 'weight_3'"),
    ],
)
def test_bad_values(change: dict[str, Any], words: str) -> None:
    description, values, inputs = one_synapse(1)
    with pytest.raises(InputError, match=words):
        run_in_brian2(description, values | change, inputs)


def test_weights_off_their_levels_and_missing_ones() -> None:
    description, values, inputs = one_synapse(1, weight_bits=4, weight_max=2.0)
    with pytest.raises(InputError, match=r"weight_1 is 1 at \(0, 0\); expected a level of 4 bits, a multiple of 0.285714"):
        run_in_brian2(description, values, inputs)
    description, values, inputs = one_synapse(1)
    with pytest.raises(InputError, match="delay_2 is missing"):
        run_in_brian2(description, {name: one for name, one in values.items() if name != "delay_2"}, inputs)


def test_an_unknown_target_and_no_brian2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(InputError, match=r"brian2 cannot be imported .*pip install 'inmaterio\[spiking\]'"):
        run_in_brian2(*one_synapse(1))
    with pytest.raises(InputError, match="unknown target 'cuda'"):
        run_in_brian2(*one_synapse(1), target="cuda")


@pytest.mark.engines
def test_inputs_without_an_event(brian2: Any) -> None:
    description, values, _ = one_synapse(1)
    found = run_in_brian2(description, values, np.zeros((1, 80)), membranes=True)
    assert not any(train.any() for train in found.spikes + found.membranes)
    with pytest.raises(InputError, match=r"inputs is -1 at \(0, 3\); expected at least 0"):
        run_in_brian2(description, values, -np.eye(80)[3:4])
