"""Dual propagation by two nudged settlings: against centred equilibrium propagation, exact gradients, and its free state."""

from typing import Any

import numpy as np
import pytest

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import equilibrium_propagation, relaxing_dual_propagation
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.simulators import digital, hopfield
from inmaterio.simulators.capabilities import Outer, Write

WIDTHS = (12, 10, 6, 4)
KEY = Key(3)
SETTLED = {"tolerance": 1e-14, "free_steps": 3000, "nudged_steps": 3000}


def network(**options: Any) -> hopfield.HopfieldNetwork:
    substrate = hopfield.build(WIDTHS, chip=Key(0), **{"dtype": "float64", **options})
    values = initial_values(substrate.parameters, key=Key(0, ("init",)), gain=0.4)
    substrate.attach(Ledger(), "substrate")
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(value) for name, value in values.items()}, key=KEY)
    return substrate


def batch() -> Batch:
    rng = np.random.default_rng(1)
    return Batch(rng.uniform(0, 1, (5, WIDTHS[0])), rng.uniform(0, 1, (5, WIDTHS[-1])), np.arange(5))


def update(module: Any, substrate: Any, **hyper: Any) -> Any:
    rule = module.build(substrate=substrate, **hyper)
    with substrate.ledger.phase("train"):
        return rule.update(rule.init(KEY), batch(), KEY)


def flat(estimates: Any) -> np.ndarray:
    return np.concatenate([np.ravel(one.dense() if isinstance(one, Outer) else one) for _, one in sorted(estimates.items())])


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("options", [{}, hopfield.PRESETS["hopfield-imperfect"], hopfield.PRESETS["hopfield-weak-feedback"]])
def test_alpha_one_half_is_centred_equilibrium_propagation_with_half_of_beta(options: dict[str, Any]) -> None:
    substrate = network(**options)
    centred = flat(update(equilibrium_propagation, substrate, beta=0.2, variant="centred").estimates)
    for variant in ("lagrangian", "original"):
        found = flat(update(relaxing_dual_propagation, substrate, beta=0.4, variant=variant).estimates)
        np.testing.assert_allclose(found, centred, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("variant", "pulled"), [("lagrangian", 0.0), ("original", 1.0)])
def test_a_compartment_that_hears_nothing_is_the_free_state(variant: str, pulled: float) -> None:
    # s+ alone is nudged: one-sided equilibrium propagation with all of beta, and no third settling
    substrate = network()
    one_sided = flat(update(equilibrium_propagation, substrate, beta=0.3, variant="one-sided").estimates)
    substrate.attach(Ledger(), "substrate")
    found = update(relaxing_dual_propagation, substrate, beta=0.3, variant=variant, alpha=pulled)
    np.testing.assert_allclose(flat(found.estimates), one_sided, rtol=1e-12, atol=1e-15)
    assert substrate.ledger.total("device_pass", "train") == 2 * 5
    assert not any("negative" in phase for phase, _, _, _ in substrate.ledger.events)
    # and the other way round s- alone is
    away = flat(update(relaxing_dual_propagation, substrate, beta=0.3, variant=variant, alpha=1.0 - pulled).estimates)
    assert 1e-3 < relative_error(away, one_sided) < 0.5


@pytest.mark.parametrize(("alpha", "order"), [(0.5, 2.0), (0.0, 1.0), (1.0, 1.0), (0.8, 1.0)])
@pytest.mark.parametrize("variant", ["lagrangian", "original"])
def test_order_of_the_error_in_beta(alpha: float, order: float, variant: str) -> None:
    substrate, data = network(), batch()
    exact = flat(substrate.oracle().loss_gradient(data.inputs, data.targets, "mse"))
    betas = [1e-1, 3e-2, 1e-2] if order == 2.0 else [1e-2, 3e-3, 1e-3]
    errors = []
    for beta in betas:
        found = update(relaxing_dual_propagation, substrate, beta=beta, alpha=alpha, variant=variant, **SETTLED)
        assert found.diagnostics.residual <= 1e-14
        errors.append(relative_error(flat(found.estimates), exact))
    slope = np.polyfit(np.log(betas), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


def test_prediction_is_the_free_phase() -> None:
    substrate, data = network(), batch()
    rule = relaxing_dual_propagation.build(substrate=substrate, free_steps=30)
    with substrate.ledger.phase("infer"):
        outputs = rule.predict(rule.init(KEY), data.inputs, data.samples, KEY)
        settled = substrate.settle(data.inputs, samples=data.samples, key=KEY, steps=30)
    np.testing.assert_array_equal(outputs, settled.states[-1])


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1.5; expected a number in \[0, 1\]"),
        ({"beta": -0.1}, "beta is -0.1; expected"),
        ({"variant": "newton"}, "unknown variant 'newton'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"free_steps": 0}, "free_steps is 0 updates"),
        ({"nudged_steps": 0}, "nudged_steps is 0 updates"),
    ],
)
def test_bad_hyperparameters_are_refused(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relaxing_dual_propagation.build(substrate=network(), **hyper)


def test_a_network_that_does_not_settle_is_refused() -> None:
    with pytest.raises(InputError, match="relaxing dual propagation cannot train this substrate: it lacks capability"):
        relaxing_dual_propagation.build(substrate=digital.build((3, 2), chip=KEY))


def test_a_nudge_that_runs_away_is_refused_by_the_network() -> None:
    substrate = network(activation="tanh", output_activation="linear")
    with pytest.raises(InputError, match="a linear output runs away under a nudge of beta <= -1"):
        update(relaxing_dual_propagation, substrate, beta=2.0)
