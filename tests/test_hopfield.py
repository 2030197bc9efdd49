"""The layered Hopfield network: kernel against its naive twin, devices, energy, determinism, bad input."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from naive_relaxation import relax as naive_relax

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Add, Clamp, Nudge, Outer, Write
from inmaterio.simulators.hopfield import HopfieldNetwork

WIDTHS = (5, 4, 3, 2)
KEY = Key(0)


def network(widths: tuple[int, ...] = WIDTHS, seed: int = 0, **options: Any) -> HopfieldNetwork:
    substrate = hopfield.build(widths, chip=Key(seed), **{"dtype": "float64", "schedule": "synchronous", **options})
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(scale=0.4, size=parameter.shape) for name, parameter in substrate.parameters.items()}
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=Key(seed, ("write",)))
    return substrate


def settle(
    substrate: HopfieldNetwork, inputs: np.ndarray, key: Key = KEY, samples: np.ndarray | None = None, **kwargs: Any
) -> Any:
    samples = np.arange(len(inputs)) if samples is None else samples
    with substrate.ledger.phase("evaluate"):
        return substrate.settle(inputs, samples=samples, key=key, **kwargs)


def inputs(size: int = 3, width: int = 5) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1.0, 1.0, (size, width))


NUDGES: dict[str, Any] = {
    "none": lambda target: None,
    "mse": lambda target: Nudge("mse", target, 0.3),
    "cross_entropy": lambda target: Nudge("cross_entropy", target, -0.1),
    "clamp": Clamp,
}


@pytest.mark.parametrize("schedule", ["synchronous", "even-odd"])
@pytest.mark.parametrize(
    ("nudge", "output"),
    # a linear output has no cross entropy
    [(nudge, output) for nudge in NUDGES for output in ("sigmoid", "linear") if (nudge, output) != ("cross_entropy", "linear")],
)
@pytest.mark.parametrize("activation", ["sigmoid", "hard-sigmoid", "tanh", "linear", "dsilu"])
@pytest.mark.parametrize("wiring", ["shared", "separate"])
def test_kernel_equals_its_naive_twin(schedule: str, nudge: str, activation: str, wiring: str, output: str) -> None:
    substrate = network(
        schedule=schedule, activation=activation, wiring=wiring, device_spread=0.2, feedback_gain=0.5, output_activation=output
    )
    x = inputs()
    target = np.random.default_rng(3).uniform(0.0, 1.0, (3, 2))
    # hidden layers start unlike rest, outputs inside their range
    start = tuple(np.full((3, width), 0.25) for width in WIDTHS[1:])
    found = settle(substrate, x, nudge=NUDGES[nudge](target), start=start, steps=5, record=True)
    model = substrate.oracle().model
    strength = {"mse": 0.3, "cross_entropy": -0.1}.get(nudge, 0.0)
    for b in range(3):
        responses = [activation, activation, output]
        layers = [layer[b] for layer in start]
        path = naive_relax(
            x[b], model.forward, model.backward, model.biases, responses, 0.5, schedule, 5, layers, nudge, strength, target[b]
        )
        for t in range(5):
            for k in range(3):
                # the converter of a bounded output cuts what a nudge behind the response pushes over its range
                wanted = np.clip(path[t][k], *((0.0, 1.0) if k == 2 and output == "sigmoid" else (-np.inf, np.inf)))
                np.testing.assert_allclose(found.record[k][t, b], wanted, rtol=1e-10, atol=1e-12)
        last = max(np.abs(path[4][k] - path[3][k]).max() for k in range(3))
        if schedule == "synchronous":
            assert found.residual[b] == pytest.approx(last, rel=1e-9)
    for k in range(3):
        np.testing.assert_array_equal(found.states[k], found.record[k][-1])


def test_both_wirings_and_their_traits() -> None:
    shared, separate = network(device_spread=0.1), network(wiring="separate", device_spread=0.1)
    smooth = {"holomorphic", "monotone"}
    assert network(feedback_gain=0.5).traits == {"symmetric", "gradient-flow"} | smooth
    assert shared.traits == {"symmetric", "reciprocal", "gradient-flow"} | smooth
    assert separate.traits == {"symmetric"} | smooth
    model = shared.oracle().model
    np.testing.assert_array_equal(model.forward[1], model.backward[1])
    model = separate.oracle().model
    relative = model.backward[1] / model.forward[1]
    assert relative.std() > 0.02
    np.testing.assert_array_equal(
        network(wiring="separate").oracle().model.forward[1], network(wiring="separate").oracle().model.backward[1]
    )


def test_tolerance_ends_a_settling_and_the_residual_is_reported() -> None:
    substrate = network()
    settled = settle(substrate, inputs(), tolerance=1e-10)
    assert settled.steps < 10_000
    assert settled.residual.max() <= 1e-10
    again = settle(substrate, inputs(), start="last", steps=1)
    assert again.residual.max() <= 1e-10
    cut = settle(substrate, inputs(), steps=2)
    assert cut.residual.max() > 1e-3


def test_even_odd_needs_half_the_updates() -> None:
    # with one hidden layer the synchronous chain is two interleaved even/odd chains
    x = inputs()
    synchronous = settle(network((5, 4, 2)), x, steps=41, record=True)
    even_odd = settle(network((5, 4, 2), schedule="even-odd"), x, steps=20, record=True)
    np.testing.assert_allclose(even_odd.record[0][19], synchronous.record[0][38], rtol=1e-12)
    np.testing.assert_allclose(even_odd.record[1][19], synchronous.record[1][39], rtol=1e-12)


def test_single_precision_responses_are_accurate() -> None:
    # the hand-made exponential of the float32 kernel, against scipy in float64 over the whole range
    from scipy.special import expit

    drive = np.linspace(-30.0, 30.0, 20_001)
    substrate = hopfield.build((1, 1), chip=Key(0), dtype="float32", bias=False, weight_max=30.0)
    with substrate.ledger.phase("initialise"):
        substrate.program({"weight_1": Write(np.full((1, 1), 30.0))}, key=Key(0))
    found = settle(substrate, (drive / 30.0)[:, None], steps=1).states[0][:, 0]
    exact = expit(4.0 * 30.0 * (drive / 30.0).astype(np.float32).astype(float) - 2.0)
    # single precision of the drive times the slope of the response, and of the result
    assert np.abs(found - exact).max() < 4e-7
    middle = np.abs(drive) < 2.0
    assert np.abs(found - exact)[middle].max() < 3e-7


# Noise ---------------------------------------------------------------------------------------------------------------


def test_read_noise_has_the_variance_of_independent_devices() -> None:
    # layer 1 of a linear one-layer network: std of its state = sigma_w sqrt(|x|^2 + 1), the 1 from the bias device
    read_noise = 0.01
    substrate = hopfield.build(
        (6, 4), chip=Key(0), output_activation="linear", dtype="float64", read_noise=read_noise, weight_max=1.0
    )
    count = 20_000
    x = np.broadcast_to(np.linspace(-1.0, 1.0, 6), (count, 6))
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(np.zeros(p.shape)) for name, p in substrate.parameters.items()}, key=Key(0))
    states = settle(substrate, x, steps=1).states[0]
    expected = substrate.description.pair.read_noise_weight * np.sqrt(np.sum(x[0] ** 2) + 1.0)
    # std of 80 000 normals has a relative standard error of 0.25 %; five of them: false alarm below 1e-6
    assert states.std() == pytest.approx(expected, rel=0.0125)
    assert abs(states.mean()) < 5 * expected / np.sqrt(states.size)


def test_held_noise_keeps_the_network_settled_and_noise_per_step_does_not() -> None:
    held = settle(network(read_noise=0.01), inputs(), steps=200)
    assert held.residual.max() < 1e-9
    renewed = settle(network(read_noise=0.01, read_noise_per_step=True), inputs(), steps=200)
    assert renewed.residual.max() > 1e-3


@pytest.mark.parametrize(
    "options", [{"read_noise": 0.01}, {"read_noise": 0.01, "read_noise_per_step": True}, {"input_noise": 0.1, "state_noise": 0.1}]
)
def test_noise_belongs_to_the_sample_and_the_key(options: dict[str, Any]) -> None:
    substrate = network(**options)
    x = inputs(6)
    samples = np.array([10, 3, 7, 2**40, 0, 5])
    whole = settle(substrate, x, samples=samples, steps=20).states
    order = np.array([4, 2, 0])
    part = settle(substrate, x[order], samples=samples[order], steps=20).states
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[order], b, rtol=0, atol=1e-12)
    again = settle(substrate, x, samples=samples, steps=20).states
    np.testing.assert_array_equal(whole[0], again[0])
    other = settle(substrate, x, samples=samples, key=Key(1), steps=20).states
    assert np.abs(other[0] - whole[0]).max() > 1e-3


def test_chips_differ_and_programming_noise_is_new_at_each_write() -> None:
    a, b, same = (network(device_spread=0.1) for _ in range(3))
    np.testing.assert_array_equal(a.oracle().model.forward[0], b.oracle().model.forward[0])
    second = hopfield.build(WIDTHS, chip=Key(1), device_spread=0.1, dtype="float64")
    for chip in (second, same):
        with chip.ledger.phase("initialise"):
            chip.program({"weight_1": Write(np.ones((4, 5)))}, key=Key(0))
    assert np.abs(second.oracle().model.forward[0] - same.oracle().model.forward[0]).max() > 0.01
    noisy = network(programming_noise=0.01)
    before = noisy.oracle().model.forward[0]
    with noisy.ledger.phase("initialise"):
        noisy.program({"weight_1": Write(np.zeros((4, 5)))}, key=Key(5))
        once = noisy.oracle().model.forward[0]
        noisy.program({"weight_1": Write(np.zeros((4, 5)))}, key=Key(6))
    assert np.abs(before).max() > 0.1
    assert np.abs(once).max() > 0
    assert not np.array_equal(once, noisy.oracle().model.forward[0])


# Writing -------------------------------------------------------------------------------------------------------------


def test_outer_and_add_reach_both_directions() -> None:
    for wiring in ("shared", "separate"):
        substrate = network(wiring=wiring)
        before = substrate.oracle().model
        left, right = np.ones((2, 3)), np.full((2, 4), 0.5)
        with substrate.ledger.phase("train"):
            substrate.program({"weight_2": Outer(left, right, 0.2), "bias_1": Add(np.full(4, 0.1))}, key=Key(1))
        after = substrate.oracle().model
        np.testing.assert_allclose(after.forward[1] - before.forward[1], 0.1, rtol=1e-9)
        np.testing.assert_allclose(after.backward[1], after.forward[1], rtol=1e-12)
        np.testing.assert_allclose(after.biases[0] - before.biases[0], 0.1, rtol=1e-9)
        twin = substrate.twin().get_parameter("weight_2").detach().numpy()
        np.testing.assert_allclose(twin, after.forward[1], rtol=1e-9)


def test_an_outer_product_takes_a_pulse_per_row_where_both_lines_are_driven() -> None:
    substrate = network()
    substrate.attach(Ledger(), "substrate")
    left, right = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
    with substrate.ledger.phase("train"):
        substrate.program({"weight_2": Outer(left, right, 0.2)}, key=Key(1))
    # first row: 2 x 2 pairs, second row: 1 x 1; two devices each; two terms of 100 ns
    assert substrate.ledger.events["train", "substrate", "array weight_2", "device_write"] == 2 * (4 + 1)
    assert substrate.ledger.total("second") == pytest.approx(2e-7)


def test_twin_knows_requests_and_not_the_chip() -> None:
    substrate = network(device_spread=0.3, programming_noise=0.05)
    rng = np.random.default_rng(0)
    asked = rng.normal(scale=0.4, size=(4, 5))
    twin = substrate.twin()
    np.testing.assert_allclose(twin.get_parameter("weight_1").detach().numpy(), asked, rtol=1e-12)
    assert np.abs(substrate.oracle().model.forward[0] - asked).max() > 0.01
    x = inputs()
    for schedule in ("synchronous", "even-odd"):
        # without errors it is the same network, run for the same time
        ideal = network(schedule=schedule, settle_steps=7)
        np.testing.assert_allclose(ideal.twin()(x).detach().numpy(), settle(ideal, x, steps=7).states[-1], rtol=1e-12)


def test_nothing_is_written_when_one_request_is_bad() -> None:
    substrate = network()
    before = substrate.oracle().model.forward[0]
    requests = {"weight_1": Write(np.zeros((4, 5))), "weight_2": Write(np.zeros((3, 3)))}
    with substrate.ledger.phase("train"), pytest.raises(InputError, match=r"weight_2 has shape \(3, 3\); expected \(3, 4\)"):
        substrate.program(requests, key=Key(0))
    np.testing.assert_array_equal(before, substrate.oracle().model.forward[0])


def test_snapshot_restores_the_same_bits() -> None:
    options = {"device_spread": 0.1, "programming_noise": 0.02, "read_noise": 0.01, "dtype": "float32"}
    substrate = network(**options)
    first = settle(substrate, inputs(), steps=10)
    snapshot = {name: np.array(value) for name, value in substrate.snapshot().items()}
    wanted = settle(substrate, inputs(), start="free", nudge=Nudge("mse", np.ones((3, 2)), 0.2), steps=3)
    clock = substrate.clock_s
    other = network(seed=4, **options)
    other.restore(snapshot)
    found = settle(other, inputs(), start="free", nudge=Nudge("mse", np.ones((3, 2)), 0.2), steps=3)
    for a, b in zip(wanted.states, found.states, strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.clock_s == clock
    assert first.steps == 10


# Energy --------------------------------------------------------------------------------------------------------------


def joules(ledger: Ledger, component: str) -> float:
    return sum(amount for (_, _, part, event), amount in ledger.events.items() if part == component and event == "ohmic_joule")


def test_counts_of_a_network_of_three_neurons_by_hand() -> None:
    # one input, one hidden and one output neuron, all tanh; weights 1 and 2, biases 0.5 and -1; g = 10 uS + |w| 5 uS
    substrate = hopfield.build(
        (1, 1, 1),
        chip=Key(0),
        activation="tanh",
        output_activation="tanh",
        schedule="synchronous",
        dtype="float64",
        g_min=10e-6,
        g_max=30e-6,
        weight_max=4.0,
        input_bits=6,
        state_bits=8,
        volts_per_activity=0.1,
        seconds_per_step=2e-7,
        seconds_per_conversion=1e-7,
        seconds_per_write=3e-7,
    )
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    with ledger.phase("initialise"):
        values = {"weight_1": [[1.0]], "bias_1": [0.5], "weight_2": [[2.0]], "bias_2": [-1.0]}
        substrate.program({name: Write(np.array(value)) for name, value in values.items()}, key=Key(0))
    with ledger.phase("train"), ledger.phase("free"):
        substrate.settle(np.array([[1.0], [-1.0]]), samples=np.arange(2), key=Key(0), steps=2)
    with ledger.phase("train"), ledger.phase("nudged"):
        substrate.settle(np.array([[1.0]]), samples=np.arange(1), key=Key(0), steps=1, nudge=Nudge("mse", np.zeros((1, 1)), 0.1))
    h1 = np.tanh([1.5, -0.5])
    o1 = np.tanh([-1.0, -1.0])
    h2 = np.tanh([1.5 + 2 * o1[0], -0.5 + 2 * o1[1]])
    o2 = np.tanh(2 * h1 - 1.0)
    factor = 0.1**2 * 2e-7
    # plus and minus device together: 2 g_min + |w| (g_max - g_min) / weight_max
    siemens = {
        name: 2 * 10e-6 + abs(w) * 5e-6 for name, w in (("weight_1", 1.0), ("bias_1", 0.5), ("weight_2", 2.0), ("bias_2", -1.0))
    }
    free = {
        "weight_1": 2 * 2,  # two samples of activity 1 for two updates
        "weight_2": np.sum(h1**2 + h2**2) + np.sum(o1**2 + o2**2),  # both directions
        "bias_1": 2 * 2,
        "bias_2": 2 * 2,
    }
    nudged = {"weight_1": 1.0, "weight_2": np.tanh(1.5) ** 2 + np.tanh(-1.0) ** 2, "bias_1": 1.0, "bias_2": 1.0}
    for phase, squares in (("train/free", free), ("train/nudged", nudged)):
        for name, square in squares.items():
            found = ledger.events[phase, "substrate", f"array {name}", "ohmic_joule"]
            assert found == pytest.approx(factor * siemens[name] * square, rel=1e-12), (phase, name)
    counted = {key[:1] + key[2:]: amount for key, amount in ledger.events.items() if key[3] != "ohmic_joule"}
    assert counted == pytest.approx(
        {
            ("initialise", "array weight_1", "device_write"): 2,
            ("initialise", "array weight_2", "device_write"): 2,
            ("initialise", "array bias_1", "device_write"): 2,
            ("initialise", "array bias_2", "device_write"): 2,
            ("train/free", "neurons", "amplifier_second"): 2 * 2 * (2 * 2e-7 + 2e-7),
            ("train/free", "input DAC", "dac_conversion_6b"): 2,
            ("train/free", "state ADC", "adc_conversion_8b"): 4,
            ("train/free", "sample-and-hold", "sample_hold"): 4,
            ("train/nudged", "neurons", "amplifier_second"): 2 * (2e-7 + 2e-7),
            ("train/nudged", "input DAC", "dac_conversion_6b"): 1,
            ("train/nudged", "nudge DAC", "dac_conversion_6b"): 1,
            ("train/nudged", "state ADC", "adc_conversion_8b"): 2,
        }
    )
    tallies = {key[::2]: amount for key, amount in ledger.tallies.items()}
    assert tallies == pytest.approx(
        {
            ("initialise", "second"): 4 * 3e-7,
            ("initialise", "program_call"): 1,
            ("train/free", "device_pass"): 2,
            ("train/free", "step"): 4,
            ("train/free", "sample"): 2,
            ("train/free", "second"): 2 * (2 * 2e-7 + 2 * 1e-7),
            ("train/nudged", "device_pass"): 1,
            ("train/nudged", "step"): 1,
            ("train/nudged", "sample"): 0,
            ("train/nudged", "second"): 2e-7 + 2 * 1e-7,
        }
    )
    assert substrate.clock_s == pytest.approx(ledger.total("second"))


def test_zero_input_costs_nothing_in_the_input_array() -> None:
    substrate = network()
    settle(substrate, np.zeros((3, 5)), steps=10)
    assert joules(substrate.ledger, "array weight_1") == 0.0
    assert joules(substrate.ledger, "array weight_2") > 0.0
    silent = network(activation="tanh", output_activation="tanh", bias=False)
    settle(silent, np.zeros((3, 5)), steps=10)
    assert [joules(silent.ledger, f"array weight_{k}") for k in (1, 2, 3)] == [0.0, 0.0, 0.0]
    settle(silent, inputs(), steps=10)
    assert min(joules(silent.ledger, f"array weight_{k}") for k in (1, 2, 3)) > 0.0


def test_array_energy_is_linear_in_read_time_and_quadratic_in_volts() -> None:
    found = []
    for options in ({}, {"seconds_per_step": 3e-7}, {"volts_per_activity": 0.4}):
        substrate = network(**options)
        settle(substrate, inputs(), steps=10)
        found.append([joules(substrate.ledger, f"array weight_{k}") for k in (1, 2, 3)])
    np.testing.assert_allclose(found[1], 3 * np.array(found[0]), rtol=1e-12)
    np.testing.assert_allclose(found[2], 4 * np.array(found[0]), rtol=1e-12)


def test_an_even_odd_update_lasts_two_of_a_node() -> None:
    both = {schedule: network(schedule=schedule) for schedule in ("synchronous", "even-odd")}
    for substrate in both.values():
        settle(substrate, inputs(), tolerance=1e-12)  # from the first settling on, the states stay as they are
        substrate.attach(Ledger(), "substrate")
        settle(substrate, inputs(), start="last", steps=10)
    for k in (1, 2, 3):
        found = [joules(substrate.ledger, f"array weight_{k}") for substrate in both.values()]
        assert found[1] == pytest.approx(2 * found[0], rel=1e-9)
    seconds = [substrate.ledger.total("second") - 3 * 2 * 1e-7 for substrate in both.values()]
    assert seconds == pytest.approx([3 * 10 * 1e-7, 2 * 3 * 10 * 1e-7])


def test_separate_arrays_pay_for_their_feedback() -> None:
    x = inputs()
    shared, separate = network(), network(wiring="separate")
    for substrate in (shared, separate):
        settle(substrate, x, steps=10)
    together = joules(separate.ledger, "array weight_2") + joules(separate.ledger, "array weight_2 feedback")
    assert together == pytest.approx(joules(shared.ledger, "array weight_2"), rel=1e-12)
    assert separate.ledger.events["initialise", "substrate", "array weight_2 feedback", "device_write"] == 2 * 12


def test_outputs_alone_cost_fewer_conversions() -> None:
    substrate = network(state_bits=8)
    settled = settle(substrate, inputs(), steps=10, read="outputs")
    assert [state.shape for state in settled.states] == [(3, 2)]
    assert substrate.ledger.events["evaluate", "substrate", "state ADC", "adc_conversion_8b"] == 6


def test_events_outside_a_phase_raise() -> None:
    substrate = network()
    with pytest.raises(InputError, match="outside a phase"):
        substrate.settle(inputs(), samples=np.arange(3), key=Key(0), steps=1)


# Bits ----------------------------------------------------------------------------------------------------------------

DETERMINISM = """
import hashlib, numba, numpy as np, sys
from threadpoolctl import threadpool_limits
from inmaterio.devices.randomness import Key
from inmaterio.simulators import hopfield
from inmaterio.simulators.capabilities import Nudge, Write
substrate = hopfield.build((40, 64, 10), chip=Key(2), **{**hopfield.PRESETS["hopfield-imperfect"], "read_noise_per_step": True})
rng = np.random.default_rng(0)
with threadpool_limits(1), substrate.ledger.phase("train"):
    numba.set_num_threads(int(sys.argv[1]))
    substrate.program({n: Write(rng.normal(scale=0.2, size=p.shape)) for n, p in substrate.parameters.items()}, key=Key(1))
    settled = substrate.settle(rng.uniform(-1, 1, (20, 40)), samples=np.arange(20), key=Key(3), steps=20)
    nudged = substrate.settle(rng.uniform(-1, 1, (20, 40)), samples=np.arange(20), key=Key(3), steps=20, start="free",
                              nudge=Nudge("mse", np.zeros((20, 10)), 0.2))
print(hashlib.sha256(b"".join(s.tobytes() for s in settled.states + nudged.states)).hexdigest())
"""


def test_same_bits_with_one_and_two_threads() -> None:
    found = []
    for threads in ("1", "2"):
        # the test session itself runs on one thread: the child may have as many as are asked for
        environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", DETERMINISM, threads], capture_output=True, text=True, env=environment, check=True
        )
        found.append(done.stdout.strip())
    assert len(found[0]) == 64
    assert found[0] == found[1]


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4,)}, "widths are [4]; expected the input and at least one layer"),
        ({"widths": (4, 0)}, "a width is 0 nodes"),
        ({"activation": "sigmoide"}, "unknown activation 'sigmoide'; nearest: sigmoid"),
        ({"feedback_gain": 0.0}, "feedback_gain is 0; expected a number in (0, 1]"),
        ({"wiring": "both"}, "unknown wiring 'both'"),
        ({"state_bits": 99}, "99"),
        ({"state_bits": 0}, "bits"),
        ({"g_max": -1e-6}, "S"),
        ({"programming_noise": -0.1}, "-0.1"),
        ({"spread": 0.1}, "unknown option of a Hopfield network 'spread'; nearest: device_spread"),
        ({"volts_per_activity": 5.0}, "volts_per_activity is 5 V; expected a number in (0, 2] V"),
    ],
)
def test_bad_descriptions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        hopfield.build(options.pop("widths", WIDTHS), chip=Key(0), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((3, 4))}, "input has shape (3, 4); expected (any, 5)"),
        ({"inputs": np.full((3, 5), np.nan)}, "input is nan at (0, 0)"),
        ({"inputs": np.full((3, 5), 1.5)}, "input is 1.5 at (0, 0); expected at most 1"),
        ({"samples": np.arange(2)}, "samples has shape (2,); expected (3,)"),
        ({"steps": None}, "settle needs steps or a tolerance"),
        ({"steps": 0}, "steps is 0 updates"),
        ({"start": "free"}, "start 'free' needs the states of an earlier settling"),
        ({"start": (np.zeros((3, 4)),)}, "start holds 1 layers; expected 3"),
        ({"nudge": Nudge("mse", np.zeros((3, 3)), 0.1)}, "target has shape (3, 3); expected (3, 2)"),
        ({"nudge": Nudge("mse", np.zeros((3, 2), dtype=complex), 0.1)}, "target holds complex values"),
        ({"read": "some"}, "unknown read 'some'"),
    ],
)
def test_bad_settlings(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"inputs": inputs(), "samples": np.arange(3), "key": Key(0), "steps": 3, **change}
    with pytest.raises(InputError) as error:
        settle(network(), **arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "loss", "beta"),
    [({}, "cross_entropy", -0.25), ({}, "cross_entropy", -0.3), ({"output_activation": "linear"}, "mse", -1.0)],
)
def test_a_nudge_that_must_run_away_is_refused(options: dict[str, Any], loss: str, beta: float) -> None:
    with pytest.raises(InputError, match=rf"beta is {beta:g}; .* runs away"):
        settle(network(**options), inputs(), nudge=Nudge(loss, np.zeros((3, 2)), beta), steps=3)
    # the other way round it pulls the harder, and the output comes to rest near the target
    pulled = settle(network(**options), inputs(), nudge=Nudge(loss, np.full((3, 2), 0.3), -100 * beta), steps=300)
    assert pulled.residual.max() < 1e-6
    np.testing.assert_allclose(pulled.states[-1], 0.3, atol=0.05)


def test_a_nudge_on_a_linear_output_rests_where_the_total_energy_does() -> None:
    target = np.random.default_rng(3).uniform(0.0, 1.0, (3, 2))
    substrate = network(output_activation="linear")
    nudged = settle(substrate, inputs(), nudge=Nudge("mse", target, 0.4), tolerance=1e-13)
    oracle = substrate.oracle()

    def total(output: np.ndarray) -> np.ndarray:
        states = (*nudged.states[:-1], output)
        return oracle.energy(inputs(), states) + 0.4 * 0.5 * np.sum((output - target) ** 2, axis=1)

    for direction in np.eye(2):
        slope = (total(nudged.states[-1] + 1e-5 * direction) - total(nudged.states[-1] - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(slope, 0.0, atol=1e-8)


@pytest.mark.parametrize("beta", [0.0, float("nan"), float("inf")])
def test_a_nudge_needs_a_strength(beta: float) -> None:
    with pytest.raises(InputError, match="beta is"):
        Nudge("mse", np.zeros((1, 1)), beta)
