"""The in-situ adjoint: the exact gradient wherever the device allows the experiment, and its passes."""

from typing import Any

import numpy as np
import pytest
from doubles.random_medium import RandomMedium
from ready_network import ask, assert_order_of_rows_is_nothing, descend, device_passes, exact, flat, ready, some_batch

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import in_situ_adjoint
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators.digital_twin import loss_and_gradient


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(
    "options",
    [{}, {"tunable": 3}, {"skip": True, "response": "positive"}, {"ablation": "no-physics"}, {"ablation": "linear-physics"}],
)
def test_gradient_is_exact_without_noise(loss: str, options: dict[str, Any]) -> None:
    substrate = ready((5, 6, 4, 3), **options)
    batch = some_batch(substrate)
    found = ask(in_situ_adjoint.build(substrate=substrate, loss=loss), substrate, batch)
    wanted = exact(substrate, batch, loss)
    assert set(found.estimates) == set(wanted) == set(substrate.parameters)
    np.testing.assert_allclose(flat(found.estimates), flat(wanted), rtol=1e-10, atol=1e-12)
    outputs = substrate.oracle().outputs(batch.inputs)
    np.testing.assert_allclose(found.diagnostics.outputs, outputs, rtol=1e-10)
    assert found.diagnostics.loss == pytest.approx(
        loss_and_gradient(loss, outputs, batch.targets, substrate.ports["output"])[0], rel=1e-10
    )


def test_a_bare_medium_is_trained_too() -> None:
    medium = RandomMedium((5, 3), Key(0), tunable=4)
    medium.attach(Ledger(), "substrate")
    batch = some_batch(medium)
    found = ask(in_situ_adjoint.build(substrate=medium), medium, batch)
    oracle = medium.oracle()
    _, slope = loss_and_gradient("mse", oracle.outputs(batch.inputs), batch.targets, medium.ports["output"])
    wanted = oracle.pullback(batch.inputs, slope)[1]["tuning"] / len(batch)
    np.testing.assert_allclose(found.estimates["tuning"], wanted, rtol=1e-10)
    assert device_passes(medium, "train/free") == 8
    assert device_passes(medium, "train/backward") == 2 * 8, "the experiment measures the forward and the adjoint field"
    before, after = descend(in_situ_adjoint.build(substrate=medium), medium, batch, 0.05, 40)
    assert after < 0.97 * before


@pytest.mark.parametrize(("tunable", "experiments"), [(0, 2), (2, 3)])
def test_passes_are_those_of_the_ledger(tunable: int, experiments: int) -> None:
    """The first of three layers takes part only where its physics has something to learn."""
    substrate = ready((5, 6, 4, 3), tunable=tunable)
    ask(in_situ_adjoint.build(substrate=substrate), substrate, some_batch(substrate, 7))
    assert device_passes(substrate, "train/free") == 3 * 7
    assert device_passes(substrate, "train/backward") == 2 * experiments * 7
    assert substrate.ledger.events[("train/backward", "host", "output error", "alu_fp32")] == 2 * 7 * 3


def test_noise_is_in_the_gradient_and_belongs_to_the_sample() -> None:
    substrate = ready((5, 6, 3), noise=0.02, tunable=2)
    batch = some_batch(substrate)
    rule = in_situ_adjoint.build(substrate=substrate)
    wanted = flat(exact(substrate, batch, "mse"))
    many = np.array([flat(ask(rule, substrate, batch, Key(n)).estimates) for n in range(100)])
    single, mean = np.linalg.norm(many - wanted, axis=1).mean(), np.linalg.norm(many.mean(axis=0) - wanted)
    assert 1e-3 < single / np.linalg.norm(wanted) < 0.5
    assert mean < 0.5 * single


def test_order_of_rows_is_nothing() -> None:
    substrate = ready((5, 6, 3), noise=0.02)
    assert_order_of_rows_is_nothing(in_situ_adjoint.build(substrate=substrate), substrate, some_batch(substrate))


def test_no_error_no_change() -> None:
    substrate = ready((5, 6, 3), tunable=2)
    batch = some_batch(substrate)
    there = Batch(batch.inputs, substrate.oracle().outputs(batch.inputs), batch.samples)
    found = flat(ask(in_situ_adjoint.build(substrate=substrate), substrate, there).estimates)
    assert np.abs(found).max() < 1e-12


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="the in-situ adjoint cannot train this substrate: it lacks capability Adjoint"):
        in_situ_adjoint.build(substrate=ready((5, 3), adjoint=False))
    with pytest.raises(InputError, match="unknown loss 'hinge'"):
        in_situ_adjoint.build(substrate=ready((5, 3)), loss="hinge")
