"""Asymmetric equilibrium propagation: exact for any couplings, where the plain vector-field form keeps its bias."""

from typing import Any

import numpy as np
import pytest
from nudged_network import (
    EXACT,
    ask,
    contraction,
    cosine,
    exact_gradient,
    flat,
    lecun_network,
    network,
    relative_error,
    settled_rows,
    signs_batch,
    slope,
    some_batch,
)

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import asymmetric_equilibrium_propagation as asymmetric
from inmaterio.learning_rules import generalised_equilibrium_propagation as generalised
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators.hopfield import HopfieldNetwork

BETAS = (0.003, 0.001, 3e-4, 1e-4)


def estimate(substrate: HopfieldNetwork, data: Batch, **hyper: Any) -> np.ndarray:
    return flat(ask(asymmetric.build(substrate=substrate, **{**EXACT, **hyper}), substrate, data).estimates)


@pytest.mark.parametrize(("variant", "order"), [("one-sided", 1.0), ("centred", 2.0)])
@pytest.mark.parametrize("angle", [45.0, 90.0])
def test_order_of_the_error_in_beta(variant: str, order: float, angle: float) -> None:
    substrate = network(widths=(12, 9, 8, 5), wiring="asymmetric", feedback_angle=angle)
    data = some_batch(substrate)
    assert contraction(substrate, data) < 0.9
    exact = exact_gradient(substrate, data)
    betas = np.geomspace(1e-3, 1e-2, 4)
    errors = [relative_error(estimate(substrate, data, beta=beta, variant=variant), exact) for beta in betas]
    assert slope(betas, errors) == pytest.approx(order, abs=0.1)


def test_exact_where_the_vector_field_form_stays_biased() -> None:
    substrate = lecun_network(0, 90.0)
    data = settled_rows(substrate, signs_batch(substrate, size=8, seed=0))
    exact = exact_gradient(substrate, data)
    found = [relative_error(estimate(substrate, data, beta=beta), exact) for beta in BETAS]
    rule = [generalised.build(substrate=substrate, points=2, radius=beta, **EXACT) for beta in BETAS]
    plain = [flat(ask(one, substrate, data).estimates) for one in rule]
    biased = [relative_error(one, exact) for one in plain]
    assert slope(BETAS, found) == pytest.approx(2.0, abs=0.1)
    assert found[-1] < 1e-5
    assert abs(slope(BETAS, biased)) < 0.01
    assert min(biased) > 0.3
    assert cosine(plain[-1], exact) < 0.95


def test_cross_entropy() -> None:
    substrate = network(widths=(12, 9, 8, 5), wiring="asymmetric")
    data = some_batch(substrate)
    exact = exact_gradient(substrate, data, "cross_entropy")
    assert relative_error(estimate(substrate, data, beta=1e-4, loss="cross_entropy"), exact) < 1e-5


def test_symmetric_couplings_make_it_the_vector_field_form() -> None:
    substrate = network(widths=(12, 9, 8, 5), wiring="asymmetric", feedback_angle=0.0)
    data = some_batch(substrate)
    plain = generalised.build(substrate=substrate, points=2, radius=0.1, **EXACT)
    assert relative_error(estimate(substrate, data, beta=0.1), flat(ask(plain, substrate, data).estimates)) < 1e-11


def test_phases_are_counted_apart() -> None:
    substrate = network(wiring="asymmetric")
    data = some_batch(substrate)
    ledger = Ledger()
    substrate.attach(ledger, "substrate")
    update = ask(asymmetric.build(substrate=substrate), substrate, data)
    assert set(update.estimates) == set(substrate.parameters)
    passes = {phase: amount for (phase, _, name), amount in ledger.tallies.items() if name == "device_pass"}
    assert passes == {"train/free": 5, "train/positive": 5, "train/negative": 5}


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"beta": 0.0}, "beta is 0; expected a number in (0"),
        ({"variant": "random-sign"}, "unknown variant 'random-sign'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"free_steps": 0}, "free_steps is 0 updates"),
    ],
)
def test_bad_hyperparameters(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        asymmetric.build(substrate=network(wiring="asymmetric"), **hyper)
    assert message in str(error.value)


def test_beta_at_which_the_network_does_not_settle_is_refused() -> None:
    substrate = network(wiring="asymmetric")
    rule = asymmetric.build(substrate=substrate, beta=8.0, tolerance=1e-9, free_steps=500, nudged_steps=200)
    with pytest.raises(InputError, match=r"nudged phase with beta 8 does not settle: its residual is .*a smaller beta"):
        ask(rule, substrate, some_batch(substrate))
