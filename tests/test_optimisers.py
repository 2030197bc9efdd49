"""Optimisers: torch's arithmetic against the equations by hand, state to the same bits, exact counts."""

import io
from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.optimisers import ARITHMETIC, Diverged, InPlace, MasterCopy
from inmaterio.learning_rules.schedules import Group, group_of, schedule
from inmaterio.simulators.capabilities import Add, Outer, Parameter, Write

PARAMETERS = {
    "weight_1": Parameter((2, 3)),
    "bias_1": Parameter((2,)),
    "weight_2": Parameter((1, 2), low=-0.5, high=0.5, layer=2),
}
INITIAL = {"weight_1": np.arange(6.0).reshape(2, 3) / 4, "bias_1": np.array([0.5, -0.25]), "weight_2": np.array([[0.25, -0.25]])}
RATES = {"weight_1": 0.125, "bias_1": 0.5, "weight_2": 0.25}


def master(**options: Any) -> tuple[MasterCopy, Ledger]:
    ledger = Ledger()
    return MasterCopy(PARAMETERS, INITIAL, **{"rates": RATES, "ledger": ledger, **options}), ledger


def gradients(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    return [{name: random.normal(size=one.shape) for name, one in PARAMETERS.items()} for _ in range(count)]


def written(requests: dict[str, Any]) -> dict[str, np.ndarray]:
    assert all(isinstance(request, Write) for request in requests.values())
    return {name: request.values for name, request in requests.items()}


def test_plain_steps_by_hand() -> None:
    optimiser, ledger = master(dtype="float64")
    estimates = {"weight_1": np.full((2, 3), 2.0), "bias_1": np.array([1.0, -1.0])}
    with ledger.phase("train"):
        first = written(optimiser.step(estimates))
        second = written(optimiser.step(estimates, 0.5))
    # Sums of powers of two: exact. The parameter without an estimate is not written.
    assert set(first) == {"weight_1", "bias_1"}
    np.testing.assert_array_equal(first["weight_1"], INITIAL["weight_1"] - 0.25)
    np.testing.assert_array_equal(first["bias_1"], [0.0, 0.25])
    np.testing.assert_array_equal(second["weight_1"], INITIAL["weight_1"] - 0.375)
    np.testing.assert_array_equal(second["bias_1"], [-0.25, 0.5])


def test_momentum_and_weight_decay_by_hand() -> None:
    optimiser, ledger = master(dtype="float64", momentum=0.9, weight_decay=0.01)
    values, velocity = dict(INITIAL), {name: np.zeros(one.shape) for name, one in PARAMETERS.items()}
    with ledger.phase("train"):
        for step, estimates in enumerate(gradients(4)):
            factor = schedule("cosine", step, 4)
            new = written(optimiser.step(estimates, factor))
            for name, estimate in estimates.items():
                velocity[name] = 0.9 * velocity[name] + estimate + 0.01 * values[name]
                values[name] = np.clip(
                    values[name] - RATES[name] * factor * velocity[name], PARAMETERS[name].low, PARAMETERS[name].high
                )
                np.testing.assert_allclose(new[name], values[name], rtol=1e-13, atol=1e-15)
    assert np.abs(values["weight_2"]).max() <= 0.5


def test_adam_by_hand() -> None:
    optimiser, ledger = master(dtype="float64", optimiser="adam")
    values = dict(INITIAL)
    m, v = ({name: np.zeros(one.shape) for name, one in PARAMETERS.items()} for _ in range(2))
    with ledger.phase("train"):
        for t, estimates in enumerate(gradients(4), start=1):
            new = written(optimiser.step(estimates))
            for name, g in estimates.items():
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g**2
                change = RATES[name] * (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
                values[name] = np.clip(values[name] - change, PARAMETERS[name].low, PARAMETERS[name].high)
                np.testing.assert_allclose(new[name], values[name], rtol=1e-12, atol=1e-14)


def test_an_outer_product_is_the_dense_estimate() -> None:
    left, right = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    results = []
    for estimate in (Outer(left, right, 2.0), np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 8.0]])):
        optimiser, ledger = master()
        with ledger.phase("train"):
            results.append(written(optimiser.step({"weight_1": estimate}))["weight_1"])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in ARITHMETIC), ("sgd", {"momentum": 0.9, "weight_decay": 0.1})]
)
def test_a_state_kept_in_a_file_goes_on_with_the_same_bits(name: str, options: dict[str, float]) -> None:
    steps = gradients(10)
    del steps[7]["bias_1"]  # a parameter may rest for a step
    whole, ledger = master(optimiser=name, **options)
    half, half_ledger = master(optimiser=name, **options)
    with ledger.phase("train"), half_ledger.phase("train"):
        expected = [written(whole.step(estimates, 0.5)) for estimates in steps]
        for estimates in steps[:5]:
            half.step(estimates, 0.5)
        file = io.BytesIO()
        np.savez(file, **half.state())  # type: ignore[arg-type]
        for estimates in steps[5:]:
            half.step(estimates, 0.5)  # what was kept must not move with it
        file.seek(0)
        zeros = {parameter: np.zeros(one.shape) for parameter, one in PARAMETERS.items()}
        rest = MasterCopy(PARAMETERS, zeros, rates=RATES, ledger=half_ledger, optimiser=name, **options)
        with np.load(file) as kept:
            rest.load_state(kept)
        for estimates, one in zip(steps[5:], expected[5:], strict=True):
            again = written(rest.step(estimates, 0.5))
            assert again.keys() == one.keys()
            for parameter, values in again.items():
                np.testing.assert_array_equal(values, one[parameter])
    assert rest.state().keys() == whole.state().keys()
    for entry, values in rest.state().items():
        np.testing.assert_array_equal(values, whole.state()[entry])


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    optimiser, ledger = master(momentum=0.5)
    with ledger.phase("train"):
        optimiser.step(gradients(1)[0])
    before = optimiser.state()
    for bad, message in (
        ({k: v for k, v in before.items() if k != "master:bias_1"}, "master:bias_1"),
        ({**before, "momentum_buffer:bias_9": np.zeros(2)}, "bias_9"),
        ({**before, "master:bias_1": np.zeros(3)}, r"master:bias_1 has shape \(3,\)"),
        ({**before, "master:bias_1": np.full(2, np.nan)}, "nan"),
        ({**before, "exp_avg:bias_1": np.zeros(2)}, "unknown entry of this optimiser's state 'exp_avg'"),
    ):
        with pytest.raises(InputError, match=message):
            optimiser.load_state(bad)
        for entry, values in optimiser.state().items():
            np.testing.assert_array_equal(values, before[entry])


def test_a_state_of_another_optimiser_is_refused() -> None:
    adam, ledger = master(optimiser="adam")
    with ledger.phase("train"):
        adam.step(gradients(1)[0])
    kept = adam.state()
    del kept["exp_avg_sq:bias_1"]
    with pytest.raises(InputError, match="state of bias_1 holds exp_avg, step; expected exp_avg, exp_avg_sq, step"):
        master(optimiser="adam")[0].load_state(kept)
    with pytest.raises(InputError, match="unknown entry of this optimiser's state"):
        master()[0].load_state(adam.state())


def test_writes_share_no_memory_with_the_master_copy() -> None:
    first, second = gradients(2)
    results = []
    for spoil in (False, True):
        initial = {name: values.astype(np.float32) for name, values in INITIAL.items()}
        ledger = Ledger()
        optimiser = MasterCopy(PARAMETERS, initial, rates=RATES, ledger=ledger, momentum=0.5)
        with ledger.phase("train"):
            given = {name: g.astype(np.float32) for name, g in first.items()}
            requests = written(optimiser.step(given))
            if spoil:
                for arrays in (initial, given, requests, optimiser.values(), optimiser.state()):
                    for array in arrays.values():
                        array[...] = 7
            results.append(written(optimiser.step(second)))
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name])


def test_values_are_clipped_to_the_range_in_the_master_copy_too() -> None:
    optimiser, ledger = master(dtype="float64")
    with ledger.phase("train"):
        up = written(optimiser.step({"weight_2": np.array([[-100.0, 0.0]])}))
        np.testing.assert_array_equal(up["weight_2"], [[0.5, -0.25]])
        down = written(optimiser.step({"weight_2": np.array([[1.0, 0.0]])}))
        np.testing.assert_array_equal(down["weight_2"], [[0.25, -0.25]])  # from the bound, not from beyond it


def test_what_the_host_computes_is_counted_by_hand() -> None:
    for options, macs, operations, words in (
        ({}, 1, 0, 3),
        ({"momentum": 0.9}, 2, 0, 5),
        ({"momentum": 0.9, "weight_decay": 0.1}, 3, 0, 5),
        ({"optimiser": "adam"}, 3, 7, 7),
    ):
        optimiser, ledger = master(**options)
        with ledger.phase("train"), ledger.phase("update"):
            optimiser.step({"weight_1": Outer(np.ones((4, 2)), np.ones((4, 3))), "bias_1": np.ones(2)})
        assert ledger.events == {
            ("train/update", "host", "host optimiser", "mac_fp32"): 4 * 6 + macs * 8,
            ("train/update", "host", "host optimiser", "alu_fp32"): operations * 8 + 4 * 2,  # and the left factor
            # and both factors, stored and read
            ("train/update", "host", "host optimiser", "byte_sram"): 4 * words * 8 + 2 * 4 * (4 * 2 + 4 * 3),
        }


def test_changes_in_place() -> None:
    ledger = Ledger()
    optimiser = InPlace(PARAMETERS, rates=RATES, ledger=ledger)
    left, right = np.ones((4, 2)), np.ones((4, 3))
    with ledger.phase("train"):
        requests = optimiser.step({"weight_1": Outer(left, right, 3.0), "bias_1": np.array([2.0, -4.0])}, 0.5)
    outer, add = requests["weight_1"], requests["bias_1"]
    assert isinstance(outer, Outer)
    assert outer.scale == -0.125 * 0.5 * 3.0
    np.testing.assert_array_equal(outer.dense(), np.full((2, 3), -0.1875))
    assert isinstance(add, Add)
    np.testing.assert_array_equal(add.values, [-0.5, 1.0])
    assert ledger.events == {
        ("train", "host", "host optimiser", "alu_fp32"): 2 + 4 * 2,  # the dense change, the left factor
        ("train", "host", "host optimiser", "byte_sram"): 2 * 2 * 4 + 2 * 4 * (4 * 2 + 4 * 3),
    }
    assert not np.shares_memory(outer.left, left)
    assert optimiser.state() == {}
    optimiser.load_state({})
    with pytest.raises(InputError, match="holds master:bias_1; expected nothing"):
        optimiser.load_state({"master:bias_1": np.ones(2)})


def test_schedules() -> None:
    assert [schedule("constant", step, 4) for step in (0, 4)] == [1.0, 1.0]
    np.testing.assert_allclose(
        [schedule("cosine", step, 4) for step in range(5)], [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0], atol=1e-15
    )
    with pytest.raises(InputError, match="unknown schedule 'cosin'; nearest: cosine"):
        schedule("cosin", 0, 4)
    with pytest.raises(InputError, match="step is 5"):
        schedule("cosine", 5, 4)


@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        ({"weight_9": np.ones(2)}, "unknown parameter with a rate 'weight_9'"),
        ({"weight_1": np.ones((3, 2))}, r"estimate of weight_1 has shape \(3, 2\); expected \(2, 3\)"),
        ({"weight_1": Outer(np.ones((4, 3)), np.ones((4, 3)))}, r"weight_1 have shapes \(4, 3\) and \(4, 3\)"),
        ({"weight_1": Outer(np.ones((4, 2)), np.ones((5, 3)))}, r"weight_1 have shapes \(4, 2\) and \(5, 3\)"),
        ({"weight_1": Outer(np.ones((0, 2)), np.ones((0, 3)))}, "batch in the estimate of weight_1 is 0"),
        ({"bias_1": Outer(np.ones((4, 2)), np.ones((4, 1)))}, "bias_1 have shapes"),
    ],
)
def test_estimates_that_do_not_fit_are_refused(estimates: dict[str, Any], message: str) -> None:
    optimiser, ledger = master()
    for one in (optimiser, InPlace(PARAMETERS, rates=RATES, ledger=ledger)):
        with ledger.phase("train"), pytest.raises(InputError, match=message):
            one.step({"weight_2": np.ones((1, 2)), **estimates})
    assert ledger.events == {}
    np.testing.assert_array_equal(optimiser.values()["weight_2"], INITIAL["weight_2"])


def test_what_diverges_is_named() -> None:
    optimiser, ledger = master()
    in_place = InPlace(PARAMETERS, rates=RATES, ledger=ledger)
    with ledger.phase("train"):
        for one in (optimiser, in_place):
            for bad in (np.array([1.0, np.nan]), np.array([np.inf, 0.0])):
                with pytest.raises(Diverged, match="estimate of bias_1 is not finite"):
                    one.step({"bias_1": bad})
            with pytest.raises(Diverged, match="estimate of weight_1 is not finite"):
                one.step({"weight_1": Outer(np.full((1, 2), np.nan), np.ones((1, 3)))})
        with pytest.raises(Diverged, match="weight_1 is not finite after the step"):
            optimiser.step({"weight_1": np.full((2, 3), 3e38)}, 100.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": {"weight_1": -0.1}}, r"rate of weight_1 is -0.1; expected a number in \[0, inf\)"),
        ({"rates": {"weight_1": np.nan}}, "rate of weight_1 is nan"),
        ({"rates": {"weight_1": np.inf}}, "rate of weight_1 is inf"),
        ({"rates": {"weight_7": 0.1}}, "unknown parameter 'weight_7'; nearest: weight_"),
        ({"rates": {}}, "no parameter has a learning rate"),
        ({"optimiser": "adm"}, "unknown optimiser 'adm'; nearest: adam"),
        ({"optimiser": "adam", "momentum": 0.5}, "momentum is 0.5 for optimiser 'adam'"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        master(**options)


def test_first_values_fill_their_intervals_and_do_not_depend_on_each_other() -> None:
    parameters = {"weight_1": Parameter((60, 90)), "bias_1": Parameter((60,)), "weight_2": Parameter((10, 60), layer=2)}
    for scheme, limits in (
        ("glorot-uniform", (0.1, 0.5 * (6 / 70) ** 0.5)),
        ("he-uniform", (0.5 * (6 / 90) ** 0.5, 0.5 * 0.1**0.5)),
    ):
        values = initial_values(parameters, key=Key(4), scheme=scheme)
        for name, limit in zip(("weight_1", "weight_2"), limits, strict=True):
            assert values[name].shape == parameters[name].shape
            assert values[name].dtype == np.float64
            assert 0.95 * limit < values[name].max() <= limit
            assert -limit <= values[name].min() < -0.95 * limit
            # Mean of n uniforms in a fixed stream: five standard errors, limit / sqrt(3 n) each.
            assert abs(values[name].mean()) < 5 * limit / np.sqrt(3 * values[name].size)
        np.testing.assert_array_equal(values["bias_1"], np.zeros(60))
        alone = initial_values({"weight_2": parameters["weight_2"]}, key=Key(4), scheme=scheme)
        np.testing.assert_array_equal(alone["weight_2"], values["weight_2"])
    doubled = initial_values(parameters, key=Key(4), scheme="he-uniform", gain=1.0)
    np.testing.assert_allclose(doubled["weight_1"], 2 * values["weight_1"], rtol=1e-12)
    assert np.abs(initial_values(parameters, key=Key(5))["weight_2"] - values["weight_2"]).max() > 0


def test_bad_initialisations_are_refused() -> None:
    with pytest.raises(InputError, match="unknown initialisation 'glorot'; nearest: glorot-uniform"):
        initial_values(PARAMETERS, key=Key(0), scheme="glorot")
    with pytest.raises(InputError, match="gain is 0"):
        initial_values(PARAMETERS, key=Key(0), gain=0.0)
    with pytest.raises(InputError, match=r"kernel has shape \(3, 3, 3\)"):
        initial_values({"kernel": Parameter((3, 3, 3))}, key=Key(0))


def test_one_cycle_is_that_of_torch() -> None:
    import warnings

    import torch

    for total in (2, 3, 4, 7, 40):
        tensor = torch.nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.SGD([tensor], lr=0.1)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.5, total_steps=total, cycle_momentum=False)
        for step in range(total):
            assert 0.5 * schedule("one-cycle", step, total) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
            if step < total - 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch wants the optimiser to have moved first
                    plan.step()
    assert schedule("one-cycle", 0, 1) == pytest.approx(4e-6)


def test_rates_and_decay_of_each_parameter() -> None:
    optimiser, ledger = master(dtype="float64", weight_decay=0.25, undecayed=["bias_1"])
    plain, _ = master(dtype="float64", weight_decay=0.25)
    nothing = {name: np.zeros(one.shape) for name, one in PARAMETERS.items()}
    with ledger.phase("train"):
        new = written(optimiser.step(nothing, {"weight_1": 1.0, "bias_1": 1.0, "weight_2": 0.5}))
    np.testing.assert_array_equal(new["weight_1"], INITIAL["weight_1"] * (1 - 0.125 * 0.25))
    np.testing.assert_array_equal(new["bias_1"], INITIAL["bias_1"])
    np.testing.assert_array_equal(new["weight_2"], INITIAL["weight_2"] * (1 - 0.125 * 0.25))
    # a multiply-accumulate for the decay of each element that has one
    assert ledger.events["train", "host", "host optimiser", "mac_fp32"] == (6 + 2 + 2) + (6 + 2)
    with ledger.phase("train"), pytest.raises(InputError, match="weight_2"):
        plain.step(nothing, {"weight_1": 1.0, "bias_1": 1.0})


def test_the_group_of_a_parameter() -> None:
    groups = {"delay": Group(rate_factor=20.0, schedule="cosine", decayed=False), "recurrent_delay": Group(decayed=False)}
    assert group_of("delay_12", groups) is groups["delay"]
    assert group_of("block/delay_1", groups) is groups["delay"]
    assert group_of("recurrent_delay_1", groups) is groups["recurrent_delay"]
    assert group_of("weight_1", groups) == group_of("delayed", groups) == Group()
    with pytest.raises(InputError, match="schedule of a group"):
        Group(schedule="exponential")
    with pytest.raises(InputError, match="rate_factor of a group is -1"):
        Group(rate_factor=-1.0)
