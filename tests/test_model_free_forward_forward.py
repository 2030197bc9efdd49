"""Model-free forward-forward: exact local gradients, exact passes, physics that is only driven and read, digits."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from doubles.label_training import BATCH, KEY, RNG, SAMPLES, Listener, begin, digits, train
from doubles.random_medium import network
from doubles.remote_black_box import RemoteNetwork
from naive_forward_forward import cosine_update, next_drive
from scipy.stats import binom

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.checkpoint import flatten_record, rebuild_record
from inmaterio.learning_rules import model_free_forward_forward as rule_file
from inmaterio.learning_rules.label_embedding import wrong_labels
from inmaterio.learning_rules.optimisers import MasterCopy
from inmaterio.simulators.capabilities import Layer, Outer
from inmaterio.simulators.measurable import Measurable

WIDTHS = (6, 5, 4, 3)


def local_loss(outputs: list[torch.Tensor], direction: torch.Tensor, theta: float, goodness: str) -> torch.Tensor:
    z = [y.abs() if goodness == "magnitude" else y for y in outputs]
    right, wrong = (torch.nn.functional.cosine_similarity(one, direction[None], dim=1, eps=1e-30) for one in z)
    return torch.nn.functional.softplus(-theta * (right - wrong)).mean()


@pytest.mark.parametrize("goodness", ["magnitude", "identity"])
@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("widths", [WIDTHS, (6, 3)])
def test_local_update_is_the_gradient_of_the_loss_restricted_to_its_layer(goodness: str, nonnegative: bool, widths: Any) -> None:
    substrate = Listener(network(widths, noise=0.1, skip=True))
    initial = begin(substrate, gain=1.0)
    rule = rule_file.build(substrate=substrate, goodness=goodness, nonnegative=nonnegative, theta=3.0)
    state = rule.init(KEY)
    with substrate.ledger.phase("train"):
        found = rule.update(state, BATCH, KEY)
    (_, _, right), (_, _, wrong) = substrate.heard
    trained = max(len(widths) - 2, 1)
    assert set(found.estimates) == {f"{kind}_{k}" for kind in ("weight", "bias") for k in range(1, trained + 1)}
    losses = []
    for k, direction in enumerate(state.directions):
        weight = torch.tensor(initial[f"weight_{k + 1}"], requires_grad=True)
        bias = torch.tensor(initial[f"bias_{k + 1}"], requires_grad=True)
        outputs = [torch.tensor(one[k].features) @ weight.T + bias for one in (right, wrong)]
        loss = local_loss(outputs, torch.tensor(direction), 3.0, goodness)
        loss.backward()
        losses.append(float(loss.detach()))
        for name, exact in ((f"weight_{k + 1}", weight.grad), (f"bias_{k + 1}", bias.grad)):
            estimate = found.estimates[name]
            dense = estimate.dense() if isinstance(estimate, Outer) else estimate
            assert np.abs(dense - exact.numpy()).max() < 1e-10
            assert np.linalg.norm(dense) > 1e-3, "right labels still push"
    assert found.diagnostics.loss == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize("goodness", ["magnitude", "identity"])
def test_update_agrees_with_its_naive_twin(goodness: str) -> None:
    right, wrong = (Layer(RNG.normal(size=(4, 3)), RNG.normal(size=(4, 5))) for _ in range(2))
    direction = RNG.normal(size=5)
    direction /= np.linalg.norm(direction)
    loss, weight, bias = cosine_update(
        (right.features, right.outputs), (wrong.features, wrong.outputs), direction, 4.0, goodness == "magnitude"
    )
    losses, estimate, _ = rule_file.local_update(right, wrong, direction, theta=4.0, goodness=goodness)
    assert losses.mean() == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(estimate.dense(), weight, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(rule_file.bias_of(estimate), bias, rtol=1e-11, atol=1e-14)


def test_a_silent_map_has_no_goodness_and_no_slope() -> None:
    g, slope = rule_file.goodness_and_slope(np.zeros((2, 3)), np.array([0.6, 0.8, 0.0]), "identity")
    assert not g.any()
    assert not slope.any()


def test_directions_are_unit_vectors_of_their_own() -> None:
    substrate = network(WIDTHS)
    for nonnegative in (True, False):
        directions = rule_file.build(substrate=substrate, nonnegative=nonnegative).init(KEY).directions
        assert [len(one) for one in directions] == [5, 4]
        np.testing.assert_allclose([np.linalg.norm(one) for one in directions], 1.0, rtol=1e-14)
        assert all((one >= 0).all() for one in directions) == nonnegative
    again = rule_file.build(substrate=substrate).init(Key(4)).directions
    assert abs(again[0] - directions[0]).max() > 0.01


@pytest.mark.parametrize("head", [False, True])
def test_exact_passes_of_an_update_and_of_a_prediction(head: bool) -> None:
    substrate = network(WIDTHS)
    begin(substrate)
    rule = rule_file.build(substrate=Measurable(substrate), head=head)
    state = rule.init(KEY)
    state = rebuild_record(state, flatten_record(state))
    with substrate.ledger.phase("train"):
        found = rule.update(state, BATCH, KEY)
    passes = {phase: n for (phase, _, name), n in substrate.ledger.tallies.items() if name == "device_pass"}
    passes.pop("initialise")
    wanted = {"train/positive": 8 * 2, "train/negative": 8 * 2, **({"train/free": 8 * 3} if head else {})}
    assert passes == wanted, "two maps learn by goodness; the neutral pass goes through three"
    assert set(found.estimates) == {f"{kind}_{k}" for kind in ("weight", "bias") for k in ((1, 2, 3) if head else (1, 2))}
    with substrate.ledger.phase("infer"):
        scores = rule.predict(state, BATCH.inputs, SAMPLES, KEY)
    assert scores.shape == (8, 3)
    assert substrate.ledger.total("device_pass", "infer") == 8 * 3 * 2, "samples x classes x layers"
    assert substrate.ledger.total("sample", "infer") == 8
    if head:
        with substrate.ledger.phase("evaluate"):
            outputs = rule_file.build(substrate=substrate, head=True, score="head").predict(state, BATCH.inputs, SAMPLES, KEY)
        assert outputs.shape == (8, 3)
        assert substrate.ledger.total("device_pass", "evaluate") == 8 * 3, "samples x layers"


def test_labels_driven_are_the_right_one_a_wrong_one_and_a_neutral_one() -> None:
    substrate = Listener(network(WIDTHS))
    begin(substrate)
    rule = rule_file.build(substrate=substrate, head=True, label_amplitude=0.6)
    with substrate.ledger.phase("train"):
        found = rule.update(rule.init(KEY), BATCH, KEY)
    heard = {phase: options for phase, options, _ in substrate.heard}
    np.testing.assert_array_equal(heard["train/positive"]["labels"], 0.6 * BATCH.targets)
    wrong = heard["train/negative"]["labels"]
    assert set(np.unique(wrong)) == {0.0, 0.6}
    np.testing.assert_array_equal(wrong.sum(axis=1), 0.6)
    assert not (wrong * BATCH.targets).any()
    np.testing.assert_allclose(heard["train/free"]["labels"], 0.2)
    for options in heard.values():
        np.testing.assert_array_equal(options["inputs"], BATCH.inputs)
    with substrate.ledger.phase("evaluate"):
        outputs = substrate.layers(BATCH.inputs, samples=SAMPLES, key=KEY, labels=np.full((8, 3), 0.2))[-1]
    logits = torch.tensor(outputs.outputs, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, torch.tensor(BATCH.targets)).backward()
    weight = found.estimates["weight_3"]
    assert isinstance(weight, Outer)
    assert np.abs(weight.dense() - logits.grad.numpy().T @ outputs.features).max() < 1e-10
    np.testing.assert_allclose(found.diagnostics.outputs, outputs.outputs, rtol=0, atol=1e-12)


def test_outputs_without_a_head_are_the_goodness_of_the_two_labels_tried() -> None:
    substrate = Listener(network(WIDTHS))
    begin(substrate)
    rule = rule_file.build(substrate=substrate)
    with substrate.ledger.phase("train"):
        outputs = rule.update(rule.init(KEY), BATCH, KEY).diagnostics.outputs
    with substrate.ledger.phase("evaluate"):
        scores = rule.predict(rule.init(KEY), BATCH.inputs, SAMPLES, KEY)
    tried = BATCH.targets + (substrate.heard[1][1]["labels"] > 0) > 0
    np.testing.assert_allclose(outputs[tried], scores[tried], rtol=1e-12)
    assert (outputs[~tried] == -2.0).all(), "no sum of two cosines lies below"


def test_wrong_labels_are_uniform_and_belong_to_the_sample() -> None:
    samples, odds = np.arange(30000), np.ones((30000, 5))
    labels = samples % 5
    drawn = wrong_labels(labels, samples, KEY, odds)
    assert (drawn != labels).all()
    counts = np.bincount((drawn - labels) % 5, minlength=5)[1:]
    assert np.abs(counts - 7500).max() < 5 * np.sqrt(30000 * 0.25 * 0.75), "5 standard deviations: 2e-6 false alarms"
    some = np.array([77, 3, 2000])
    np.testing.assert_array_equal(wrong_labels(labels[some], samples[some], KEY, odds[:3]), drawn[some])
    assert (wrong_labels(labels, samples, KEY.at("next"), odds) != drawn).mean() > 0.5, "another batch, another draw"


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    """The amplitude of a label is a constant: a sample beside much larger ones is driven alike."""
    substrate = network(WIDTHS, noise=0.05)
    begin(substrate)
    rule = rule_file.build(substrate=substrate)
    state = rule.init(KEY)
    inputs = np.concatenate([0.05 * BATCH.inputs[:4], np.sign(BATCH.inputs[4:])])
    with substrate.ledger.phase("evaluate"):
        together = rule.predict(state, inputs, SAMPLES, KEY)
        for order in ([0], [7, 0, 3], [3, 2, 1, 0]):
            alone = rule.predict(state, inputs[order], SAMPLES[order], KEY)
            np.testing.assert_allclose(alone, together[order], rtol=0, atol=1e-12)


def remote_training(seeds: tuple[int, ...], response: str, updates: int = 3) -> tuple[Any, ...]:
    """A few updates through boxes in other processes; what crossed the pipes, the maps before each update, and the network."""
    widths = (6, 8, 7, 3)
    with RemoteNetwork(widths, seeds, detectors=9, response=response) as remote:
        substrate, boxes = remote.substrate, remote.boxes
        assert all(box.capabilities == {"Forward"} and box.oracle() is None for box in boxes)
        assert all(not box.parameters and not box.traits for box in boxes)
        initial = begin(substrate)
        assert len({os.getpid(), *(box.process for box in boxes)}) == 4, "every box is a process of its own"
        for box in boxes:
            box.driven.clear()
            box.answered.clear()
        rule = rule_file.build(substrate=substrate)
        state = rule.init(KEY)
        before, losses = [], []
        rates = dict.fromkeys(substrate.parameters, 0.03)
        optimiser = MasterCopy(substrate.parameters, initial, rates=rates, ledger=substrate.ledger, optimiser="adam")
        for step in range(updates):
            with substrate.ledger.phase("train"):
                before.append(dict(substrate.read_back(key=KEY)))
                found = rule.update(state, BATCH, KEY)
                losses.append(found.diagnostics.loss)
                with substrate.ledger.phase("update"):
                    substrate.program(optimiser.step(found.estimates), key=KEY.at(step))
        with substrate.ledger.phase("infer"):
            before.append(dict(substrate.read_back(key=KEY)))
            rule.predict(state, BATCH.inputs, SAMPLES, KEY)
        return [(box.driven, box.answered) for box in boxes], before, substrate.snapshot(), losses, substrate.ledger


@pytest.mark.parametrize("response", ["magnitude", "positive"])
def test_a_black_box_in_another_process_is_driven_by_data_labels_and_maps_alone(response: str) -> None:
    crossed, maps, snapshot, losses, ledger = remote_training((1, 2, 3), response)
    other, *_ = remote_training((11, 12, 13), response)
    assert losses[-1] < losses[0]
    # two passes of three updates and one call of a prediction; nothing reaches the physics before the readout
    assert [len(driven) for driven, _ in crossed] == [7, 7, 0]
    assert [len(drive) for drive in crossed[0][0]] == [len(drive) for drive in crossed[1][0]] == [8] * 6 + [24]
    assert ledger.total("device_pass", "train") == 3 * 2 * 8 * 2
    assert ledger.total("device_pass", "infer") == 8 * 3 * 2
    first = crossed[0][0]
    for i, (drive, elsewhere) in enumerate(zip(first, other[0][0], strict=True)):
        np.testing.assert_array_equal(drive, elsewhere, err_msg="whatever the box answers")
        np.testing.assert_array_equal(drive[:, :6], np.tile(BATCH.inputs, (3 if i == 6 else 1, 1)))
    for positive, negative in zip(first[0:6:2], first[1:6:2], strict=True):
        np.testing.assert_array_equal(positive[:, 6:], BATCH.targets)
        np.testing.assert_array_equal(np.sort(negative[:, 6:], axis=1), np.sort(BATCH.targets, axis=1))
        assert not (negative[:, 6:] * BATCH.targets).any()
    np.testing.assert_array_equal(first[6][:, 6:], np.repeat(np.eye(3), 8, axis=0))
    for i, (answer, drive) in enumerate(zip(crossed[0][1], crossed[1][0], strict=True)):
        held = maps[i // 2]
        wanted = next_drive(
            answer, snapshot["layer_1/mean"], snapshot["layer_1/gain"], held["weight_1"], held["bias_1"], response
        )
        np.testing.assert_allclose(drive, wanted, rtol=0, atol=1e-9, err_msg=f"call {i}")


def test_shuffled_labels_end_at_chance() -> None:
    data = digits(400, shuffled=True)
    substrate = network((64, 40, 10), detectors=40)
    initial = begin(substrate, data.given)
    rule = rule_file.build(substrate=substrate)
    state, losses = train(substrate, rule, initial, data.batches(15, 40), 0.01)
    assert np.mean(losses[-10:]) < 0.9 * losses[0], "it learns what it is told"
    # both tails together 1e-3 at a chance of one in ten
    low, high = binom.ppf([5e-4, 1 - 5e-4], 360, 0.1)
    assert low <= data.right(substrate, rule, state) <= high


@pytest.mark.parametrize("ablation", ["none", "no-physics"])
def test_loss_on_digits_falls_from_ln_2_below_015_in_40_epochs(ablation: str) -> None:
    data = digits(1000)
    substrate = network((64, 100, 100, 10), detectors=100, ablation=ablation)
    initial = begin(substrate, data.given)
    rule = rule_file.build(substrate=substrate)
    state, losses = train(substrate, rule, initial, data.batches(40, 100), 0.01)
    assert abs(losses[0] - np.log(2)) < 0.03
    assert np.mean(losses[-10:]) < 0.15
    # seen: 0.96 with and without the medium, losses 0.08 and 0.10
    assert data.right(substrate, rule, state) > 0.9 * 360


def test_a_softmax_head_learns_from_the_neutral_label() -> None:
    data = digits(600)
    substrate = network((64, 60, 10), detectors=60, response="identity")
    initial = begin(substrate, data.given)
    rule = rule_file.build(substrate=substrate, head=True, score="head")
    state, _ = train(substrate, rule, initial, data.batches(10, 40), 0.01)
    assert data.right(substrate, rule, state) > 0.8 * 360


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": 0.0}, "theta is 0"),
        ({"label_amplitude": 0.0}, "label_amplitude is 0"),
        ({"label_amplitude": 1.5}, r"label_amplitude is 1.5; expected a number in \(0, 1\]"),
        ({"goodness": "square"}, "unknown goodness 'square'"),
        ({"score": "head"}, "score 'head' without a head"),
        ({"score": "vote"}, "unknown score 'vote'"),
    ],
)
def test_bad_hyperparameters(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule_file.build(substrate=network(WIDTHS), **change)


def test_substrates_it_cannot_train() -> None:
    with pytest.raises(InputError, match="lacks capability InjectLabel"):
        rule_file.build(substrate=network(WIDTHS, labels=False))
    with pytest.raises(InputError, match="lacks trait mapped"):
        rule_file.build(substrate=network(WIDTHS, tunable=2))
    with pytest.raises(InputError, match="1 output, expected at least 2"):
        rule_file.build(substrate=network((6, 5, 1)))
    with pytest.raises(InputError, match="one map, which learns by its goodness"):
        rule_file.build(substrate=network((6, 3)), head=True)


@pytest.mark.parametrize("targets", [RNG.normal(size=(8, 3)), np.zeros((8, 3)), np.eye(3)[[0] * 8] + np.eye(3)[[1] * 8]])
def test_targets_that_are_no_classes_are_refused(targets: Any) -> None:
    substrate = network(WIDTHS)
    begin(substrate)
    rule = rule_file.build(substrate=substrate)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match="targets are not one-hot"):
        rule.update(rule.init(KEY), replace(BATCH, targets=targets), KEY)
