"""Multiplexed gradient descent: codes, exactness on a quadratic loss, windows and groups, passes."""

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
from inmaterio.learning_rules import multiplexed_gradient_descent as rule_file
from inmaterio.learning_rules.multiplexed_gradient_descent import mean_square, period, waveforms
from inmaterio.learning_rules.perturbations import parameter_count, typical_scales
from inmaterio.simulators.capabilities import Write

PERIODIC = ("sequential", "walsh", "sinusoid")


def quadratic(**options: Any) -> Any:
    """One layer: outputs are linear in what is trained, the squared error is quadratic in it."""
    return ready((4, 3), detectors=6, **options)


def missed(substrate: Any, batch: Any, **hyper: Any) -> float:
    """Error of the estimates of one update with the whole batch, relative to the exact gradient."""
    rule = rule_file.build(substrate=substrate, rows=0, **hyper)
    found, gradient = flat(ask(rule, substrate, batch).estimates), flat(exact(substrate, batch, "mse"))
    return float(np.linalg.norm(found - gradient) / np.linalg.norm(gradient))


@pytest.mark.parametrize("elements", [1, 5, 8, 21])
@pytest.mark.parametrize("code", PERIODIC)
def test_waveforms_are_orthogonal_over_a_period(code: str, elements: int) -> None:
    times = period(code, elements)
    table = np.array([waveforms(code, time, elements, KEY) for time in range(times)])
    np.testing.assert_allclose(table.T @ table / times, mean_square(code, elements) * np.eye(elements), atol=1e-12)
    if code != "sequential":
        np.testing.assert_allclose(table.mean(axis=0), 0.0, atol=1e-12)
    if code == "sinusoid":  # the strongest line of each spectrum: distinct, and below half the clock
        lines = np.argmax(np.abs(np.fft.rfft(table, axis=0)), axis=0)
        assert len(set(lines)) == elements
        assert lines.max() < times / 2
    np.testing.assert_array_equal(waveforms(code, 3 * times + 1, elements, KEY), waveforms(code, 1, elements, KEY))


def test_random_waveforms_are_signs_of_their_time() -> None:
    first = waveforms("random", 0, 400, KEY)
    assert set(np.unique(first)) == {-1.0, 1.0}
    assert abs(first.mean()) < 0.2, "4 sigma"
    assert abs(np.mean(first * waveforms("random", 0, 400, Key(3)))) < 0.2
    assert period("random", 400) == 0


@pytest.mark.parametrize(
    ("code", "variant"),
    [("sinusoid", "one-sided"), ("sinusoid", "two-sided"), ("walsh", "two-sided"), ("sequential", "two-sided")],
)
def test_exact_on_a_quadratic_over_whole_periods(code: str, variant: str) -> None:
    substrate = quadratic()
    assert missed(substrate, some_batch(substrate), code=code, variant=variant, perturbations=0) < 1e-10


@pytest.mark.parametrize("code", ["walsh", "sequential"])
def test_one_sided_codes_are_biased_by_the_curvature(code: str) -> None:
    substrate = quadratic()
    errors = [
        missed(substrate, some_batch(substrate), code=code, variant="one-sided", perturbations=0, size=size)
        for size in (0.1, 0.01)
    ]
    assert errors[1] > 1e-4
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=1e-3), "first order in s, and nothing else on a quadratic"


@pytest.mark.parametrize("code", PERIODIC)
def test_error_beyond_a_quadratic_is_of_second_order(code: str) -> None:
    substrate = quadratic()
    batch = some_batch(substrate)
    gradient = flat(exact(substrate, batch, "cross_entropy"))
    errors = []
    for size in (0.1, 0.03):
        rule = rule_file.build(substrate=substrate, rows=0, code=code, perturbations=0, size=size, loss="cross_entropy")
        errors.append(np.linalg.norm(flat(ask(rule, substrate, batch).estimates) - gradient))
    assert np.log(errors[0] / errors[1]) / np.log(0.1 / 0.03) == pytest.approx(2.0, abs=0.15)


class Shifted:
    """A substrate whose free outputs are wrong by a constant: so is C_0."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def forward(self, inputs: Any, *, samples: Any, key: Key) -> Any:
        return self._inner.forward(inputs, samples=samples, key=key) + 0.7


@pytest.mark.parametrize("code", PERIODIC)
def test_a_shift_of_the_free_loss_does_nothing_to_balanced_codes(code: str) -> None:
    substrate = quadratic()
    batch = some_batch(substrate)
    found = [
        flat(
            ask(
                rule_file.build(substrate=one, rows=0, code=code, variant="one-sided", perturbations=0), substrate, batch
            ).estimates
        )
        for one in (substrate, Shifted(substrate))
    ]
    difference = np.abs(found[0] - found[1]).max() / np.abs(found[0]).max()
    assert difference < 1e-10 if code != "sequential" else difference > 0.1


@pytest.mark.parametrize("code", PERIODIC)
def test_waveforms_go_on_from_update_to_update(code: str) -> None:
    """Updates of a part of a period each: their mean over the period is what one update over the period finds."""
    substrate = quadratic()
    batch, times = some_batch(substrate), period(code, parameter_count(substrate.parameters))
    steps = next(n for n in range(2, times + 1) if times % n == 0)
    rule, state, found = rule_file.build(substrate=substrate, rows=0, code=code, perturbations=steps), None, []
    for _ in range(times // steps):
        update = ask(rule, substrate, batch, state=state)
        state = update.state
        found.append(flat(update.estimates))
    assert state == rule_file.State(times)
    gradient = flat(exact(substrate, batch, "mse"))
    np.testing.assert_allclose(np.mean(found, axis=0), gradient, atol=1e-9 * np.abs(gradient).max())
    assert np.linalg.norm(found[0] - gradient) > 0.1 * np.linalg.norm(gradient)


def test_random_codes_on_the_whole_batch_are_simultaneous_perturbation() -> None:
    substrate = quadratic(tunable=2)
    batch, scales = some_batch(substrate), typical_scales(substrate.parameters)
    rule = rule_file.build(substrate=substrate, rows=0, size=1e-4)
    found = flat(ask(rule, substrate, batch).estimates, scales)
    signs, slope = np.sign(found), np.abs(found).mean()
    np.testing.assert_allclose(np.abs(found), slope, rtol=1e-9)
    assert float(flat(exact(substrate, batch, "mse"), scales) @ signs) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (0, [7])])
@pytest.mark.parametrize("variant", ["two-sided", "one-sided"])
def test_every_group_is_weighed_by_its_rows(rows: int, sizes: list[int], variant: str) -> None:
    """With a whole period for each group the estimate is the batch's, however the batch is cut; passes as the ledger has them."""
    substrate = quadratic()
    batch, times = some_batch(substrate, 7), period("sinusoid", parameter_count(substrate.parameters))
    rule = rule_file.build(substrate=substrate, rows=rows, code="sinusoid", perturbations=0, variant=variant)
    found = ask(rule, substrate, batch)
    np.testing.assert_allclose(flat(found.estimates), flat(exact(substrate, batch, "mse")), rtol=1e-8, atol=1e-10)
    one_sided = variant == "one-sided"
    assert device_passes(substrate, "train/free") == (7 if one_sided else 0)
    assert device_passes(substrate, "train/perturbed") == 7 * times * (1 if one_sided else 2)
    assert found.state.time == len(sizes) * times
    outputs = substrate.oracle().outputs(batch.inputs)
    np.testing.assert_allclose(found.diagnostics.outputs, outputs, atol=1e-10 if one_sided else 1e-3)


def test_one_row_after_the_other_hears_as_many_directions() -> None:
    """A row's slope goes along a direction of its own: estimates are not of one size any more."""
    substrate = quadratic()
    batch, scales = some_batch(substrate, 6), typical_scales(substrate.parameters)
    found = flat(ask(rule_file.build(substrate=substrate, rows=1), substrate, batch).estimates, scales)
    assert len(np.unique(np.round(np.abs(found), 12))) > 10
    assert device_passes(substrate, "train/perturbed") == 6 * 2


@pytest.mark.parametrize("variant", ["two-sided", "one-sided"])
def test_noise_that_all_passes_of_a_group_share_cancels(variant: str) -> None:
    substrate = quadratic(noise=0.1)
    batch, spread = some_batch(substrate), {}
    for shared in (False, True):
        rule = rule_file.build(substrate=substrate, variant=variant, shared_noise=shared, code="sinusoid", perturbations=0)
        spread[shared] = np.var([flat(ask(rule, substrate, batch, Key(n)).estimates) for n in range(30)], axis=0).sum()
    assert spread[True] < 0.2 * spread[False]


def test_a_parameter_at_the_end_of_its_range_shows_half_its_slope() -> None:
    substrate = quadratic(tunable=3)
    held = np.array([1.0, 0.2, -1.0])
    with substrate.ledger.phase("train"):
        substrate.program({"physics_1/tuning": Write(held)}, key=Key(0))
    batch = some_batch(substrate)
    rule = rule_file.build(substrate=substrate, code="sequential", rows=0, perturbations=0, size=1e-5)
    found, wanted = ask(rule, substrate, batch).estimates, exact(substrate, batch, "mse")
    np.testing.assert_allclose(found["physics_1/tuning"] / wanted["physics_1/tuning"], [0.5, 1.0, 0.5], rtol=1e-2)


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("variant", ["two-sided", "one-sided"])
def test_order_of_rows_is_nothing(rows: int, variant: str) -> None:
    substrate = ready((5, 6, 3), noise=0.02)
    rule = rule_file.build(substrate=substrate, rows=rows, variant=variant, perturbations=2)
    assert_order_of_rows_is_nothing(rule, substrate, some_batch(substrate))


@pytest.mark.parametrize("code", rule_file.CODES)
def test_it_learns(code: str) -> None:
    substrate = quadratic(tunable=2)
    rule = rule_file.build(substrate=substrate, code=code, rows=2, perturbations=8)
    before, after = descend(rule, substrate, some_batch(substrate, 4), 0.01, 120)
    assert after < 0.5 * before


def test_bad_settings_are_refused() -> None:
    substrate = quadratic()
    for hyper, said in (
        ({"code": "gray"}, "unknown code 'gray'"),
        ({"size": 0.0}, r"size is 0; expected a number in \(0, inf\)"),
        ({"rows": -1}, r"rows is -1; expected a number in \[0, inf\)"),
        ({"variant": "both"}, "unknown variant 'both'"),
        ({"code": "random", "perturbations": 0}, "perturbations is 0 for code 'random', which has no period"),
    ):
        with pytest.raises(InputError, match=said):
            rule_file.build(substrate=substrate, **hyper)
