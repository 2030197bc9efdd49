"""SLTT against autograd of the unrolled network with membranes taken as given."""

import numpy as np
import pytest
from naive_eligibility import Unrolled, loss_of
from small_spiking_network import check_alike, make, spikes_of, update

from inmaterio.devices.validation import InputError
from inmaterio.experiments.registry import find_rule
from inmaterio.learning_rules import spatial_learning_through_time as rule_file
from inmaterio.learning_rules.contract import Batch

VARIANTS = [
    {},
    {"readout": "mean-membrane"},
    {"readout": "spike-count"},
    {"delays": "axonal", "reset": "soft"},
    {"delays": "none", "strict": True},
    {"recurrent": True, "refractory_steps": 2},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize(("loss", "surrogate"), [("cross_entropy", "arctangent"), ("mse", "triangle")])
def test_equals_autograd_with_membranes_taken_as_given(options: dict, loss: str, surrogate: str) -> None:
    network, values, batch = make(**options)
    reference = Unrolled(network.description, values, batch.inputs, membranes=False, surrogate=surrogate, gamma=0.7)
    run = spikes_of(network, batch)
    for spikes, wanted in zip(run.spikes, reference.spikes, strict=True):
        assert wanted.sum() > 20
        np.testing.assert_array_equal(spikes, wanted)
    found = update(network, rule_file, batch, loss=loss, surrogate=surrogate, gamma=0.7)
    wanted = reference.loss(loss, batch.targets)
    check_alike(found.estimates, reference.gradients(wanted))
    assert found.diagnostics.loss == pytest.approx(float(wanted.detach()), rel=1e-12)
    np.testing.assert_allclose(found.diagnostics.outputs, reference.scores.detach(), rtol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_errors_of_each_step_are_those_of_the_mean_loss_over_steps(loss: str) -> None:
    network, values, batch = make()
    reference = Unrolled(network.description, values, batch.inputs, membranes=False, surrogate="arctangent")
    wanted = loss_of(reference.membranes[-1], loss, batch.targets[:, None])
    found = update(network, rule_file, batch, loss=loss, errors="steps")
    check_alike(found.estimates, reference.gradients(wanted))


def test_random_steps_are_right_in_the_mean() -> None:
    network, _, batch = make(steps=14, tail_steps=0)
    whole = update(network, rule_file, batch).estimates
    assert all(
        np.array_equal(one, whole[name]) for name, one in update(network, rule_file, batch, random_steps=14).estimates.items()
    )
    # with one step each, the mean over which step it is is the whole; draws of many keys meet every step
    seen: dict[bytes, dict] = {}
    for key in range(200):
        found = update(network, rule_file, batch, random_steps=1, key=key).estimates
        seen[found["bias_3"].tobytes()] = found
    assert len(seen) == 14
    mean = {name: np.mean([one[name] for one in seen.values()], axis=0) for name in whole}
    check_alike(mean, whole)


def test_order_of_the_batch_changes_no_bit() -> None:
    network, _, batch = make()
    order = np.array([2, 0, 3, 1])
    turned = Batch(batch.inputs[order], batch.targets[order], batch.samples[order])
    first, again, other = (update(network, rule_file, one) for one in (batch, batch, turned))
    for name, one in first.estimates.items():
        np.testing.assert_array_equal(one, again.estimates[name])
        np.testing.assert_array_equal(one, other.estimates[name])
    np.testing.assert_array_equal(first.diagnostics.outputs[order], other.diagnostics.outputs)


def test_bad_input_is_refused() -> None:
    network, _, _ = make(readout="spike-count")
    for wrong, match in (
        ({"errors": "steps"}, "spike-count"),
        ({"loss": "hinge"}, "hinge"),
        ({"surrogate": "box"}, "box"),
        ({"random_steps": 18}, "random_steps is 18"),
        ({"random_steps": 1.5}, "1.5"),
        ({"gamma": -1.0}, "gamma is -1"),
    ):
        with pytest.raises(InputError, match=match):
            rule_file.build(substrate=network, **wrong)
    for wrong in ({"random_steps": "ten"}, {"sharpness": 1.0}):
        with pytest.raises(InputError):
            find_rule("spatial-learning-through-time").check(wrong)
