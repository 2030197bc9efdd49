"""Forward-forward: exact local gradients, hard negatives, peer normalisation, exact passes, digits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from doubles.label_training import BATCH, KEY, RNG, SAMPLES, Listener, begin, digits, train
from doubles.random_medium import network
from naive_forward_forward import square_update
from scipy.stats import binom

from inmaterio.devices.validation import InputError
from inmaterio.experiments.checkpoint import flatten_record, rebuild_record
from inmaterio.learning_rules import forward_forward as rule_file
from inmaterio.learning_rules.label_embedding import wrong_labels
from inmaterio.simulators.capabilities import Layer, Outer, Write
from inmaterio.simulators.measurable import Measurable

WIDTHS = (6, 5, 4, 3)
SETTINGS = rule_file.Settings(1.0, 2.0, 1.0, True, "hard", 0.03, 0.9, "goodness", True)


def positive(widths: tuple[int, ...] = WIDTHS, **options: Any) -> Any:
    return network(widths, response="positive", **options)


def relu_means(outputs: Any) -> Any:
    return 0.9 * 0.5 + 0.1 * np.maximum(outputs, 0.0).mean(axis=0)


@pytest.mark.parametrize("peer", [0.0, 0.03])
@pytest.mark.parametrize("widths", [WIDTHS, (6, 3)])
def test_local_update_is_the_gradient_of_the_loss_restricted_to_its_layer(peer: float, widths: Any) -> None:
    substrate = Listener(positive(widths, noise=0.1, skip=True))
    initial = begin(substrate, gain=1.0)
    rule = rule_file.build(
        substrate=substrate, threshold=0.3, temperature=0.4, peer=peer, head=len(widths) > 2, negatives="random"
    )
    with substrate.ledger.phase("train"):
        found = rule.update(rule.init(KEY), BATCH, KEY)
    (_, _, right), (_, _, wrong) = substrate.heard[-2:]
    losses = []
    for k in range(max(len(widths) - 2, 1)):
        weight = torch.tensor(initial[f"weight_{k + 1}"], requires_grad=True)
        bias = torch.tensor(initial[f"bias_{k + 1}"], requires_grad=True)
        above, below = (torch.tensor(one[k].features) @ weight.T + bias for one in (right, wrong))
        belief = [torch.sigmoid(((y.relu() ** 2).sum(1) / len(bias) - 0.3) / 0.4) for y in (above, below)]
        loss = -0.5 * (belief[0].log() + (1 - belief[1]).log()).mean()
        losses.append(float(loss.detach()))
        mean = relu_means(right[k].outputs)
        np.testing.assert_allclose(found.state.means[k], mean, rtol=1e-12)
        # a linear pull on what leaves the map, not on what the response lets through
        (loss + 0.5 * peer * (torch.tensor(mean - mean.mean()) * above).sum(1).mean()).backward()
        for name, exact in ((f"weight_{k + 1}", weight.grad), (f"bias_{k + 1}", bias.grad)):
            estimate = found.estimates[name]
            dense = estimate.dense() if isinstance(estimate, Outer) else estimate
            assert np.abs(dense - exact.numpy()).max() < 1e-10
            assert np.linalg.norm(dense) > 1e-3, "right labels still push"
    assert found.diagnostics.loss == pytest.approx(np.mean(losses), rel=1e-10)


def test_update_agrees_with_its_naive_twin() -> None:
    right, wrong = (Layer(RNG.normal(size=(4, 3)), RNG.normal(size=(4, 5))) for _ in range(2))
    mean = RNG.uniform(size=5)
    loss, weight, bias = square_update((right.features, right.outputs), (wrong.features, wrong.outputs), 1.0, 2.0, 0.03, mean)
    losses, estimate, _ = rule_file.local_update(right, wrong, SETTINGS, mean)
    assert losses.mean() == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(estimate.dense(), weight, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(estimate.left.mean(axis=0), bias, rtol=1e-11, atol=1e-14)


def test_large_goodness_does_not_overflow() -> None:
    layer = Layer(np.ones((2, 1)), np.full((2, 5), 1e3))
    losses, estimate, _ = rule_file.local_update(layer, layer, SETTINGS, np.ones(5))
    np.testing.assert_allclose(losses, 0.5 * (1e6 - 1.0) / 2.0)
    assert np.isfinite(estimate.left).all()


def test_the_next_layer_cannot_read_the_goodness_of_the_last() -> None:
    substrate = positive()
    initial = begin(substrate)
    with substrate.ledger.phase("evaluate"):
        before = substrate.layers(BATCH.inputs, samples=SAMPLES, key=KEY)
        substrate.program({name: Write(7.0 * initial[name]) for name in ("weight_1", "bias_1")}, key=KEY)
        after = substrate.layers(BATCH.inputs, samples=SAMPLES, key=KEY)
    np.testing.assert_allclose(after[0].outputs, 7.0 * before[0].outputs, rtol=1e-12)
    np.testing.assert_allclose(after[1].features, before[1].features, rtol=0, atol=1e-7)


def test_a_silent_unit_is_woken_by_its_peers_alone() -> None:
    substrate = positive()
    initial = begin(substrate)
    with substrate.ledger.phase("initialise"):
        substrate.program({"bias_1": Write(initial["bias_1"] - np.array([0.0, 100.0, 0.0, 0.0, 0.0]))}, key=KEY)
    pushes = []
    for peer in (0.03, 0.0):
        rule = rule_file.build(substrate=substrate, peer=peer)
        with substrate.ledger.phase("train"):
            pushes.append(rule.update(rule.init(KEY), BATCH, KEY).estimates["bias_1"][1])
    assert pushes[0] < 0.0, "what an optimiser subtracts"
    assert pushes[1] == 0.0


@pytest.mark.parametrize(
    ("head", "phases"), [(True, {"free": 24, "positive": 16, "negative": 16}), (False, {"positive": 16, "negative": 16})]
)
def test_exact_passes_of_an_update_and_of_a_prediction(head: bool, phases: dict[str, int]) -> None:
    substrate = positive()
    begin(substrate)
    rule = rule_file.build(substrate=Measurable(substrate), head=head, negatives="hard" if head else "random")
    state = rule.init(KEY)
    state = rebuild_record(state, flatten_record(state))
    with substrate.ledger.phase("train"):
        found = rule.update(state, BATCH, KEY)
    passes = {phase: n for (phase, _, name), n in substrate.ledger.tallies.items() if name == "device_pass"}
    assert {phase.partition("/")[2]: n for phase, n in passes.items() if "/" in phase} == phases
    assert set(found.estimates) == {f"{kind}_{k}" for kind in ("weight", "bias") for k in ((1, 2, 3) if head else (1, 2))}
    with substrate.ledger.phase("infer"):
        assert rule.predict(state, BATCH.inputs, SAMPLES, KEY).shape == (8, 3)
    assert substrate.ledger.total("device_pass", "infer") == 8 * 3 * 2, "samples x classes x layers"
    assert substrate.ledger.total("sample", "infer") == 8
    if head:
        with substrate.ledger.phase("evaluate"):
            rule_file.build(substrate=substrate, score="head").predict(state, BATCH.inputs, SAMPLES, KEY)
        assert substrate.ledger.total("device_pass", "evaluate") == 8 * 3, "samples x layers"


def test_hard_negatives_follow_the_head() -> None:
    substrate = Listener(positive())
    begin(substrate)
    with substrate.ledger.phase("initialise"):
        substrate.program({"weight_3": Write(np.zeros((3, 16))), "bias_3": Write(np.array([0.0, 50.0, 0.0]))}, key=KEY)
    driven = {}
    for negatives in ("hard", "random"):
        rule = rule_file.build(substrate=substrate, negatives=negatives)
        with substrate.ledger.phase("train"):
            found = rule.update(rule.init(KEY), BATCH, KEY)
        driven[negatives] = substrate.heard[-1][1]["labels"].argmax(axis=1)
        np.testing.assert_array_equal(found.diagnostics.outputs, np.tile([0.0, 50.0, 0.0], (8, 1)))
    labels = BATCH.targets.argmax(axis=1)
    assert (driven["hard"][labels != 1] == 1).all()
    assert (driven["hard"] != labels).all()
    assert (driven["random"] != labels).all()
    assert (driven["random"][labels != 1] != 1).any()


def test_wrong_labels_come_in_proportion_to_their_odds() -> None:
    rows = 20000
    odds = np.tile([0.5, 0.3, 0.15, 0.05], (rows, 1))
    drawn = wrong_labels(np.zeros(rows, dtype=np.int64), np.arange(rows), KEY, odds)
    for wrong, share in ((1, 0.6), (2, 0.3), (3, 0.1)):
        assert abs((drawn == wrong).sum() - rows * share) < 5 * np.sqrt(rows * share * (1 - share)), "2e-6 false alarms each"
    lost = wrong_labels(np.zeros(rows, dtype=np.int64), np.arange(rows), KEY, np.tile([1.0, 0.0, 0.0, 0.0], (rows, 1)))
    assert set(lost) == {1, 2, 3}, "a head that is sure makes no label hard"


def test_a_prediction_does_not_depend_on_its_batch_and_counts_the_layers_asked_for() -> None:
    substrate = positive(noise=0.05)
    begin(substrate)
    inputs = np.concatenate([0.05 * BATCH.inputs[:4], np.sign(BATCH.inputs[4:])])
    scores = {}
    with substrate.ledger.phase("evaluate"):
        for skip_first in (True, False):
            rule = rule_file.build(substrate=substrate, skip_first=skip_first)
            state = rule.init(KEY)
            scores[skip_first] = rule.predict(state, inputs, SAMPLES, KEY)
            alone = rule.predict(state, inputs[[7, 0, 3]], SAMPLES[[7, 0, 3]], KEY)
            np.testing.assert_allclose(alone, scores[skip_first][[7, 0, 3]], rtol=1e-12)
        labels = np.repeat(np.eye(3), 8, axis=0)
        layers = substrate.layers(np.tile(inputs, (3, 1)), samples=np.tile(SAMPLES, 3), key=KEY, labels=labels)
        goodness = [(np.maximum(one.outputs, 0.0) ** 2).sum(axis=1).reshape(3, 8).T for one in layers]
        np.testing.assert_allclose(scores[True], goodness[1], rtol=1e-12)
        np.testing.assert_allclose(scores[False], goodness[0] + goodness[1], rtol=1e-12)
        # every label is read under noise of its own
        last = substrate.layers(inputs, samples=SAMPLES, key=KEY, labels=labels[16:])
        assert np.abs((np.maximum(last[1].outputs, 0.0) ** 2).sum(axis=1) - scores[True][:, 2]).min() > 0.0


def test_shuffled_labels_end_at_chance() -> None:
    data = digits(400, shuffled=True)
    substrate = positive((64, 40, 10), detectors=40)
    initial = begin(substrate, data.given)
    rule = rule_file.build(substrate=substrate)
    state, losses = train(substrate, rule, initial, data.batches(15, 40), 0.01)
    assert np.mean(losses[-10:]) < 0.9 * losses[0], "it learns what it is told"
    # both tails together 1e-3 at a chance of one in ten
    low, high = binom.ppf([5e-4, 1 - 5e-4], 360, 0.1)
    assert low <= data.right(substrate, rule, state) <= high
    assert low <= data.right(substrate, rule_file.build(substrate=substrate, score="head"), state) <= high


@pytest.mark.parametrize("ablation", ["none", pytest.param("no-physics", marks=pytest.mark.slow)])
def test_the_loss_of_every_layer_falls_on_digits(ablation: str) -> None:
    data = digits(1000)
    substrate = Listener(positive((64, 100, 100, 10), detectors=100, ablation=ablation))
    initial = begin(substrate, data.given)
    rule = rule_file.build(substrate=substrate)
    state, _ = train(substrate, rule, initial, data.batches(15, 50), 0.01 if ablation == "none" else 0.03)
    settings = replace(SETTINGS, temperature=0.1)
    for k in range(2):
        passes = [[one[2][k] for one in substrate.heard[i : i + 3]] for i in range(0, len(substrate.heard), 3)]
        losses = [rule_file.local_update(right, wrong, settings, np.ones(100))[0].mean() for _, right, wrong in passes]
        assert losses[0] > 3.0, "the activity begins far below the threshold"
        assert np.mean(losses[-20:]) < (0.3 if ablation == "none" else 0.6)
    head = rule_file.build(substrate=substrate, score="head")
    # seen: 0.89 and 0.92 with the medium, 0.90 and 0.95 without
    assert data.right(substrate, rule, state) > 0.8 * 360
    assert data.right(substrate, head, state) > 0.85 * 360


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"peer": -0.1}, "peer is -0.1"),
        ({"decay": 1.0}, "decay is 1"),
        ({"negatives": "easy"}, "unknown negatives 'easy'"),
        ({"head": False}, "hard negatives are drawn from a head"),
        ({"head": False, "negatives": "random", "score": "head"}, "score 'head' without a head"),
    ],
)
def test_bad_hyperparameters(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule_file.build(substrate=positive(), **change)


def test_substrates_and_targets_it_cannot_train_on() -> None:
    with pytest.raises(InputError, match="lacks capability InjectLabel"):
        rule_file.build(substrate=network(WIDTHS, labels=False))
    with pytest.raises(InputError, match="lacks trait mapped"):
        rule_file.build(substrate=network(WIDTHS, tunable=2))
    substrate = positive()
    begin(substrate)
    rule = rule_file.build(substrate=substrate)
    with substrate.ledger.phase("train"), pytest.raises(InputError, match="targets are not one-hot"):
        rule.update(rule.init(KEY), replace(BATCH, targets=RNG.normal(size=(8, 3))), KEY)
