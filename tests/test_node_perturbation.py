"""Node perturbation: orders of its error, its mean, its variance against that of weight perturbation, its passes."""

from typing import Any

import numpy as np
import pytest
from ready_network import (
    KEY,
    ask,
    assert_order_of_rows_is_nothing,
    dense,
    descend,
    device_passes,
    exact,
    flat,
    ready,
    some_batch,
)

from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError
from inmaterio.learning_rules import node_perturbation, simultaneous_perturbation
from inmaterio.learning_rules.contract import Batch
from inmaterio.simulators.capabilities import Layer, Outer, Write


def layers_of(substrate: Any, batch: Batch) -> tuple[Layer, ...]:
    with substrate.ledger.phase("evaluate"):
        return substrate.layers(batch.inputs, samples=batch.samples, key=Key(0))  # type: ignore[no-any-return]


def spreads(substrate: Any, batch: Batch) -> dict[str, float]:
    """Root mean square behind every map, by the name of its bias."""
    return {f"bias_{k}": float(np.sqrt(np.mean(one.outputs**2))) for k, one in enumerate(layers_of(substrate, batch), start=1)}


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize(("variant", "order"), [("two-sided", 2), ("one-sided", 1)])
def test_order_of_the_error_along_the_noise(loss: str, variant: str, order: int) -> None:
    """For one sample the gradient of a bias is that of its node: the change of the loss is known to first order in s."""
    substrate = ready((5, 6, 4, 3), response="identity")
    batch = some_batch(substrate, 1)
    gradient, spread = exact(substrate, batch, loss), spreads(substrate, batch)
    noise = {f"bias_{k + 1}": normals(KEY.at("nodes", k), batch.samples, width)[0] for k, width in enumerate((6, 4, 3))}
    wanted = sum(spread[name] * float(gradient[name] @ one) for name, one in noise.items())
    errors = []
    for size in (3e-2, 1e-2, 3e-3):
        found = dense(
            ask(node_perturbation.build(substrate=substrate, loss=loss, size=size, variant=variant), substrate, batch).estimates
        )
        slopes = [spread[name] * float(found[name] @ one) / float(one @ one) for name, one in noise.items()]
        np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)
        errors.append(abs(slopes[0] - wanted))
    steps = np.log(np.array(errors[:-1]) / errors[1:]) / np.log([3.0, 10 / 3])
    np.testing.assert_allclose(steps, order, atol=0.2)


@pytest.mark.parametrize("order", ["together", "in turn"])
@pytest.mark.parametrize("variant", ["two-sided", "one-sided"])
def test_mean_over_the_noise_is_the_gradient(order: str, variant: str) -> None:
    """One row under many indices has as many noises: the mean misses the gradient by sqrt((N + 1) / M), N nodes."""
    substrate, draws = ready((5, 6, 4, 3)), 20_000
    row = some_batch(substrate, 1)
    many = Batch(np.repeat(row.inputs, draws, axis=0), np.repeat(row.targets, draws, axis=0), np.arange(draws))
    rule = node_perturbation.build(substrate=substrate, loss="cross_entropy", size=3e-3, variant=variant, order=order)
    found, gradient = dense(ask(rule, substrate, many).estimates), exact(substrate, row, "cross_entropy")
    spread = spreads(substrate, row)
    missed = {name: np.sum((spread[name] * (found[name] - gradient[name])) ** 2) for name in spread}
    square = {name: np.sum((spread[name] * gradient[name]) ** 2) for name in spread}
    if order == "together":
        ratio = sum(missed.values()) / sum(square.values()) / ((6 + 4 + 3 + 1) / draws)
        # nearly a chi-square with 13 degrees of freedom over its mean: outside less than once in 2000 times
        assert 0.15 < ratio < 3.0
    else:
        for name, nodes in {"bias_1": 6, "bias_2": 4, "bias_3": 3}.items():
            # 3 degrees of freedom at the least: outside less than once in 2000 times
            assert 0.003 < missed[name] / square[name] / ((nodes + 1) / draws) < 7.0
    # the couplings have their share: the blame of a node times what entered its map
    for k, layer in enumerate(layers_of(substrate, row), start=1):
        np.testing.assert_allclose(found[f"weight_{k}"], np.outer(found[f"bias_{k}"], layer.features[0]), rtol=1e-8, atol=1e-12)


def test_variance_is_a_third_of_weight_perturbation_at_equal_passes() -> None:
    substrate = ready((8, 12, 12, 4))
    batch = some_batch(substrate, 16)
    gradient = flat(exact(substrate, batch, "cross_entropy"))
    variances, spent = [], []
    for module, hyper in ((node_perturbation, {"variant": "one-sided"}), (simultaneous_perturbation, {"variant": "two-sided"})):
        rule = module.build(substrate=substrate, loss="cross_entropy", size=1e-3, **hyper)
        before = substrate.ledger.total("device_pass", "train")
        found = [flat(ask(rule, substrate, batch, Key(n)).estimates) for n in range(150)]
        spent.append(substrate.ledger.total("device_pass", "train") - before)
        variances.append(np.mean(np.sum((np.array(found) - gradient) ** 2, axis=1)) / np.sum(gradient**2))
    assert spent[0] == spent[1] == 150 * 16 * 3 * 2
    assert variances[0] < variances[1] / 3, variances


@pytest.mark.parametrize(
    ("order", "variant", "injections"),
    [("together", "one-sided", 1), ("together", "two-sided", 2), ("in turn", "one-sided", 3), ("in turn", "two-sided", 6)],
)
def test_passes_are_those_of_the_ledger(order: str, variant: str, injections: int) -> None:
    substrate = ready((5, 6, 4, 3))
    batch = some_batch(substrate, 7)
    found = ask(node_perturbation.build(substrate=substrate, order=order, variant=variant), substrate, batch)
    assert device_passes(substrate, "train/free") == 3 * 7, "three layers, seven rows"
    assert device_passes(substrate, "train/perturbed") == 3 * 7 * injections
    assert all(isinstance(found.estimates[f"weight_{k}"], Outer) for k in (1, 2, 3))
    assert set(found.estimates) == set(substrate.parameters)
    np.testing.assert_allclose(found.diagnostics.outputs, substrate.oracle().outputs(batch.inputs), rtol=1e-10)


@pytest.mark.parametrize("order", ["together", "in turn"])
def test_the_host_pays_a_product_per_sample_and_node_for_the_blame(order: str) -> None:
    substrate = ready((5, 6, 4, 3))
    found = ask(node_perturbation.build(substrate=substrate, order=order), substrate, some_batch(substrate, 7))
    spent = {
        (phase, event): amount
        for (phase, _, component, event), amount in substrate.ledger.events.items()
        if component == "loss contrast" and event == "mac_fp32"
    }
    assert spent == {("train/perturbed", "mac_fp32"): 7 * (6 + 4 + 3)}
    # the outer products are none of these: whoever forms them pays a product per sample and coupling
    couplings = sum(np.prod(one.shape) for one in substrate.parameters.values() if len(one.shape) == 2)
    assert sum(one.macs for one in found.estimates.values() if isinstance(one, Outer)) == 7 * couplings


def test_no_error_no_change() -> None:
    """At the minimum of the loss the two sides differ only in the third order of s."""
    substrate = ready((5, 6, 3))
    batch = some_batch(substrate)
    there = Batch(batch.inputs, substrate.oracle().outputs(batch.inputs), batch.samples)
    rule = node_perturbation.build(substrate=substrate, size=1e-4, variant="two-sided")
    scale = np.abs(flat(ask(rule, substrate, batch).estimates)).max()
    assert np.abs(flat(ask(rule, substrate, there).estimates)).max() < 1e-5 * scale


@pytest.mark.parametrize("variant", ["two-sided", "one-sided"])
def test_noise_that_all_passes_share_cancels(variant: str) -> None:
    substrate = ready((5, 3), noise=0.1)
    batch, missed = some_batch(substrate), {}
    for shared in (False, True):
        rule = node_perturbation.build(substrate=substrate, size=0.02, variant=variant, shared_noise=shared)
        missed[shared] = np.var([flat(ask(rule, substrate, batch, Key(n)).estimates) for n in range(60)], axis=0).sum()
    assert missed[True] < 0.5 * missed[False]


@pytest.mark.parametrize("order", ["together", "in turn"])
def test_order_of_rows_is_nothing(order: str) -> None:
    substrate = ready((5, 6, 3), noise=0.02)
    assert_order_of_rows_is_nothing(node_perturbation.build(substrate=substrate, order=order), substrate, some_batch(substrate))


def test_it_learns() -> None:
    substrate = ready((4, 6, 3))
    rule = node_perturbation.build(substrate=substrate, size=0.03)
    before, after = descend(rule, substrate, some_batch(substrate, 4), 0.003, 300)
    assert after < 0.3 * before


def test_maps_that_hold_nothing_are_perturbed_all_the_same() -> None:
    substrate = ready((4, 3))
    with substrate.ledger.phase("train"):
        substrate.program({name: Write(np.zeros(one.shape)) for name, one in substrate.parameters.items()}, key=Key(0))
    rule = node_perturbation.build(substrate=substrate, size=0.02)
    before, after = descend(rule, substrate, some_batch(substrate, 4), 0.003, 300)
    assert after < 0.3 * before


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="node perturbation cannot train this substrate: it lacks trait mapped"):
        node_perturbation.build(substrate=ready((4, 3), tunable=2))
    substrate = ready((4, 3))
    for hyper, said in (
        ({"size": -1.0}, r"size is -1; expected a number in \(0, inf\)"),
        ({"order": "random"}, "unknown order 'random'"),
        ({"variant": "both"}, "unknown variant 'both'"),
    ):
        with pytest.raises(InputError, match=said):
            node_perturbation.build(substrate=substrate, **hyper)
