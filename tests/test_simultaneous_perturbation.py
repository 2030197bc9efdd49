"""Simultaneous perturbation: orders of its error, its variance, its noise, its passes."""

import inspect
from typing import Any

import numpy as np
import pytest
from ready_network import (
    KEY,
    ask,
    assert_order_of_rows_is_nothing,
    descend,
    device_passes,
    exact,
    flat,
    ready,
    some_batch,
)

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import (
    in_situ_adjoint,
    multiplexed_gradient_descent,
    node_perturbation,
    physics_aware_training,
    simultaneous_perturbation,
)
from inmaterio.learning_rules.perturbations import (
    check_loss,
    counted_losses,
    parameter_count,
    random_signs,
    sample_losses,
    typical_scales,
)
from inmaterio.simulators.capabilities import Parameter, Port
from inmaterio.simulators.digital_twin import batch_loss, to_tensor


def slope_along(substrate: Any, found: Any, key: Key) -> float:
    """dC/ds along the signs of an update with one direction, out of its estimates."""
    signs = flat(random_signs(key.at("direction", 0), substrate.parameters))
    return float(np.mean(flat(found.estimates, typical_scales(substrate.parameters)) * signs))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("variant", "order"), [("two-sided", 2), ("one-sided", 1)])
def test_order_of_the_error_along_a_direction(loss: str, variant: str, order: int) -> None:
    substrate = ready((5, 6, 3), tunable=2, response="identity")
    batch, scales = some_batch(substrate), typical_scales(substrate.parameters)
    signs = random_signs(KEY.at("direction", 0), substrate.parameters)
    wanted = float(flat(exact(substrate, batch, loss), scales) @ flat(signs))
    errors = []
    for size in (1e-2, 3e-3, 1e-3):
        rule = simultaneous_perturbation.build(substrate=substrate, loss=loss, size=size, variant=variant)
        found = ask(rule, substrate, batch)
        slope = slope_along(substrate, found, KEY)
        # every element of a parameter has the same size: the slope over the scale
        np.testing.assert_allclose(flat(found.estimates, scales), slope * flat(signs), rtol=1e-12)
        errors.append(abs(slope - wanted))
    steps = np.log(np.array(errors[:-1]) / errors[1:]) / np.log([10 / 3, 3.0])
    np.testing.assert_allclose(steps, order, atol=0.15)


def test_mean_over_directions_is_the_gradient_and_its_error_that_of_its_variance() -> None:
    """|g|^2 = P slope^2 always, so that E|g|^2 = P |grad|^2; the mean over M directions misses by sqrt((P - 1) / M)."""
    substrate = ready((6, 12, 4))
    batch, scales = some_batch(substrate), typical_scales(substrate.parameters)
    directions, elements = 500, parameter_count(substrate.parameters)
    gradient = flat(exact(substrate, batch, "cross_entropy"), scales)
    rule = simultaneous_perturbation.build(substrate=substrate, loss="cross_entropy", size=1e-3, pairs=directions)
    mean = flat(ask(rule, substrate, batch).estimates, scales)
    assert elements == 12 * 16 + 12 + 4 * 16 + 4
    # the missed part has about P degrees of freedom: relative error of its length 1/sqrt(2 P) = 4.3 %; 4.6 sigma
    missed = np.linalg.norm(mean - gradient) / np.linalg.norm(gradient)
    assert missed == pytest.approx(np.sqrt((elements - 1) / directions), rel=0.2)
    single = simultaneous_perturbation.build(substrate=substrate, loss="cross_entropy", size=1e-3)
    squares = [np.sum(flat(ask(single, substrate, batch, Key(n)).estimates, scales) ** 2) for n in range(600)]
    # slope^2 / |grad|^2 is nearly chi-square with one degree of freedom: relative error of the mean sqrt(2 / 600), 4 sigma
    assert np.mean(squares) / np.sum(gradient**2) == pytest.approx(elements, rel=4 * np.sqrt(2 / 600))


def test_noise_that_both_evaluations_share_cancels() -> None:
    """With independent noise of standard deviation n in the loss, the slope gains the variance n^2 / (2 s^2)."""
    substrate, size = ready((5, 3), noise=0.05), 0.05
    batch = some_batch(substrate)
    with substrate.ledger.phase("evaluate"):
        losses = [
            counted_losses(
                substrate, "mse", substrate.forward(batch.inputs, samples=batch.samples, key=Key(n)), batch.targets
            ).mean()
            for n in range(400)
        ]
    gradient = flat(exact(substrate, batch, "mse"), typical_scales(substrate.parameters))
    spread = {}
    for shared in (False, True):
        rule = simultaneous_perturbation.build(substrate=substrate, size=size, shared_noise=shared)
        missed = [
            slope_along(substrate, ask(rule, substrate, batch, Key(n)), Key(n))
            - gradient @ flat(random_signs(Key(n).at("direction", 0), substrate.parameters))
            for n in range(400)
        ]
        spread[shared] = np.var(missed)
    # relative error of each variance sqrt(2 / 400) = 7 %
    assert (spread[False] - spread[True]) / (np.var(losses) / (2 * size**2)) == pytest.approx(1.0, abs=0.4)
    assert spread[True] < 0.2 * spread[False]


@pytest.mark.parametrize(("variant", "free", "perturbed"), [("two-sided", 0, 6), ("one-sided", 1, 3)])
def test_passes_are_those_of_the_ledger(variant: str, free: int, perturbed: int) -> None:
    substrate = ready((5, 6, 4, 3), tunable=2)
    batch = some_batch(substrate, 7)
    rule = simultaneous_perturbation.build(substrate=substrate, pairs=3, variant=variant)
    found = ask(rule, substrate, batch)
    assert device_passes(substrate, "train/free") == 3 * 7 * free, "three layers, seven rows"
    assert device_passes(substrate, "train/perturbed") == 3 * 7 * perturbed
    assert {phase for phase, _, _, _ in substrate.ledger.events} <= {"initialise", "train/free", "train/perturbed"}
    assert found.diagnostics.outputs.shape == (7, 3)
    # what is physical is written and put back at each evaluation
    writes = substrate.ledger.events[("train/perturbed", "substrate", "tuning", "device_write")]
    assert writes == 2 * 2 * 3 * perturbed


def test_diagnostics_are_the_free_ones() -> None:
    substrate = ready((5, 6, 3))
    batch = some_batch(substrate)
    outputs = substrate.oracle().outputs(batch.inputs)
    loss = counted_free(substrate, batch, outputs)
    one = ask(simultaneous_perturbation.build(substrate=substrate, variant="one-sided"), substrate, batch).diagnostics
    np.testing.assert_allclose(one.outputs, outputs, rtol=1e-10)
    assert one.loss == pytest.approx(loss, rel=1e-10)
    two = ask(simultaneous_perturbation.build(substrate=substrate, size=1e-4), substrate, batch).diagnostics
    np.testing.assert_allclose(two.outputs, outputs, atol=1e-5)
    assert two.loss == pytest.approx(loss, rel=1e-5)


def counted_free(substrate: Any, batch: Any, outputs: Any) -> float:
    return float(sample_losses("mse", outputs, batch.targets, substrate.ports["output"]).mean())


@pytest.mark.parametrize("shared", [False, True])
def test_order_of_rows_is_nothing(shared: bool) -> None:
    substrate = ready((5, 6, 3), noise=0.02)
    rule = simultaneous_perturbation.build(substrate=substrate, shared_noise=shared)
    assert_order_of_rows_is_nothing(rule, substrate, some_batch(substrate))


def test_it_learns_the_maps_and_the_physics() -> None:
    substrate = ready((4, 3), tunable=3)
    rule = simultaneous_perturbation.build(substrate=substrate, size=0.02, pairs=4)
    before, after = descend(rule, substrate, some_batch(substrate, 4), 0.01, 150)
    assert after < 0.3 * before, "seen .05"


def test_bad_settings_are_refused() -> None:
    substrate = ready((4, 3))
    for hyper, said in (
        ({"size": 0.0}, r"size is 0; expected a number in \(0, inf\)"),
        ({"pairs": 0}, "pairs is 0 directions"),
        ({"variant": "both"}, "unknown variant 'both'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
    ):
        with pytest.raises(InputError, match=said):
            simultaneous_perturbation.build(substrate=substrate, **hyper)
    rule = simultaneous_perturbation.build(substrate=substrate)
    batch = some_batch(substrate)
    with pytest.raises(InputError, match=r"target has shape \(8, 2\); expected \(8, 3\)"):
        ask(rule, substrate, type(batch)(batch.inputs, batch.targets[:, :2], batch.samples))
    with pytest.raises(InputError, match=r"cross_entropy needs outputs in \[0, 1\] or unbounded; these lie in \[-1, 1\]"):
        check_loss("cross_entropy", Port(3, "1", -1.0, 1.0))


def test_typical_scales() -> None:
    parameters = {"w": Parameter((3, 16)), "b": Parameter((3,)), "delay": Parameter((4,), "s", 1e-3, 5e-3, initial=2e-3)}
    assert typical_scales(parameters) == pytest.approx({"w": 0.25, "b": 1.0, "delay": 2e-3})


@pytest.mark.parametrize("port", [Port(3, "1", -np.inf, np.inf), Port(3, "1", 0.0, 1.0)])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_losses_of_samples_have_the_mean_that_others_minimise(port: Port, loss: str) -> None:
    import torch

    rng = np.random.default_rng(0)
    outputs, targets = rng.uniform(0.1, 0.9, (5, 3)), np.eye(3)[[0, 1, 2, 1, 0]]
    mean = batch_loss(loss, to_tensor(outputs, torch.float64), to_tensor(targets, torch.float64), port)
    assert sample_losses(loss, outputs, targets, port).mean() == pytest.approx(float(mean), rel=1e-12)
    if port.high == np.inf:
        assert np.isfinite(sample_losses(loss, 1000 * outputs, targets, port)).all()


@pytest.mark.parametrize(
    "rule",
    [
        simultaneous_perturbation,
        node_perturbation,
        multiplexed_gradient_descent,
        physics_aware_training,
        in_situ_adjoint,
    ],
)
def test_defaults_that_are_shown_are_those_of_build(rule: Any) -> None:
    given = {name: one.default for name, one in inspect.signature(rule.build).parameters.items() if name != "substrate"}
    assert {name: value for name, value in rule.DEFAULTS.items() if name != "rates"} == given
    assert rule.DEFAULTS["rates"] > 0
