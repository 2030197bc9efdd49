"""Forward-forward: each map makes its activity large for the right label and small for a wrong one.

A label is driven in beside the data, once the right one (positive), once a wrong one (negative). With y what leaves a map of n
units, a what enters it as measured,

    h = max(y, 0)                     G = sum h^2                 goodness
    p = sigmoid((G / n - threshold) / T)                          probability that the data are positive
    C = (-log p+ - log(1 - p-)) / 2
    dC/dy+ = -(1 - p+) h / (n T)      dC/dy- = p- h / (n T)
    g_W = mean dC/dy+ (x) a+  +  mean dC/dy- (x) a-

for every map on its own; G is normalised away before the next layer by the substrate. Peer normalisation adds lambda (m_j -
mean_j m_j) / 2 to dC/dy+, with m the running mean of h over positive data: a unit that is seldom active is pushed up, also
where h = 0. All maps before the readout learn so (the only map where there is one).

The readout map is a softmax head, learnt by the delta rule from a pass under a neutral label. That pass also says which wrong
labels are hard to tell: negative labels are drawn from the head's probabilities.

The class predicted is the label of the largest G, summed over the trained maps but the first, whose G holds the energy of the
data itself (over all without `skip_first`, and over the only one where there is no second). That takes classes x maps passes
per sample; the head takes one pass through all maps.

Between its layers the substrate should pass on h and nothing else: a physical network wants the response ``positive``. A rule
sees y alone and cannot check that; with another response it still learns, but the next layer is driven by what is below zero
too, and can read some of the last one's goodness from it.

Source: Hinton, arXiv 2212.13345 (2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.learning_rules.contract import Batch, Diagnostics, Rule, Update
from inmaterio.learning_rules.label_embedding import (
    Maps,
    count_host,
    embed,
    every_label,
    find_maps,
    head_estimates,
    neutral,
    true_labels,
    two_scores,
    wrong_labels,
)
from inmaterio.simulators.capabilities import Array, Estimate, Layer, Outer, Requirement, Samples, requires

Floats = NDArray[np.float64]

REQUIRES: Mapping[str, Requirement] = {"substrate": requires("ReadLayers", "InjectLabel", "Program", "mapped")}
DEFAULTS: Mapping[str, Any] = {
    "rates": 0.01,
    "threshold": 1.0,
    "temperature": 0.1,
    "label_amplitude": 1.0,
    "head": True,
    "negatives": "hard",
    "peer": 0.03,
    "decay": 0.9,
    "score": "goodness",
    "skip_first": True,
}
PROGRAMS = False
NEGATIVES = ("hard", "random")
NAME = "forward-forward"
FIRST_MEAN = 0.5
"""Running mean of every unit's activity before the first batch; as all are alike, none is pushed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    threshold : float
        Goodness per unit between positive and negative data, > 0.
    temperature : float
        T, > 0, in goodness per unit; 1 / n is the width of the original.
    label_amplitude : float
        Drive of a label, in (0, 1] of full drive.
    head : bool
        Whether the readout map learns as a softmax head.
    negatives : str
        One of `NEGATIVES`: wrong labels drawn from the head's probabilities, or uniformly.
    peer : float
        lambda of the peer normalisation; 0 for none.
    decay : float
        What the running mean keeps per batch, in [0, 1).
    score : str
        One of `label_embedding.SCORES`.
    skip_first : bool
        Whether the goodness of the first map is left out of a prediction where there is a second.
    """

    threshold: float
    temperature: float
    label_amplitude: float
    head: bool
    negatives: str
    peer: float
    decay: float
    score: str
    skip_first: bool


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What the host remembers between batches.

    Attributes
    ----------
    means : tuple of ndarray, each (width,)
        Running mean of every unit's activity over positive data, per trained map.
    """

    means: tuple[Floats, ...]


def build(
    *,
    substrate: Any,
    threshold: float = 1.0,
    temperature: float = 0.1,
    label_amplitude: float = 1.0,
    head: bool = True,
    negatives: str = "hard",
    peer: float = 0.03,
    decay: float = 0.9,
    score: str = "goodness",
    skip_first: bool = True,
) -> Rule:
    """The rule on one substrate; parameters as in `Settings`.

    Raises
    ------
    InputError
        When the substrate lacks a capability or trait or has no two classes, or a hyperparameter is out of range.
    """
    missing = REQUIRES["substrate"].missing(substrate)
    if missing:
        raise InputError(f"{NAME} cannot train this substrate: it {missing}")
    for name, value in (("threshold", threshold), ("temperature", temperature)):
        check_range(name, value, low=0.0, low_open=True, high_open=True)
    check_name("negatives", negatives, NEGATIVES)
    check_range("peer", peer, low=0.0, high_open=True)
    check_range("decay", decay, low=0.0, high=1.0, high_open=True)
    if negatives == "hard" and not head:
        raise InputError("hard negatives are drawn from a head; expected head = true, or negatives 'random'")
    maps = find_maps(substrate, NAME, head=head, score=score, amplitude=label_amplitude)
    settings = Settings(threshold, temperature, label_amplitude, head, negatives, peer, decay, score, skip_first)
    return Rule(partial(init, maps), partial(update, substrate, maps, settings), partial(predict, substrate, maps, settings))


def init(maps: Maps, key: Key) -> State:
    """All units alike; nothing is drawn."""
    return State(tuple(np.full(one.width, FIRST_MEAN) for one in maps.trained))


def update(substrate: Any, maps: Maps, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """A pass under the neutral label in phase ``free`` when there is a head, then a positive and a negative one.

    Wrong labels are drawn for each sample from `key`. `Diagnostics.loss` is the mean over the trained maps of C. Its outputs
    are the head's under the neutral label; without a head nothing is known of labels that were not tried, and the outputs are
    the sums of goodness of the two that were, and below any goodness for the others: then the training error is that of a
    choice between two labels.

    Raises
    ------
    InputError
        When the targets are not one-hot, or the batch does not fit the ports.
    """
    labels = true_labels(NAME, batch.targets, maps.classes)
    estimates: dict[str, Estimate] = {}
    odds, outputs = np.ones((len(batch), maps.classes)), None
    if settings.head:
        assert maps.readout is not None
        with substrate.ledger.phase("free"):
            layers = substrate.layers(
                batch.inputs,
                samples=batch.samples,
                key=key.at("free"),
                labels=neutral(len(batch), maps.classes, settings.label_amplitude),
            )
        found, probabilities = head_estimates(maps.readout, layers[-1], embed(labels, maps.classes, 1.0))
        estimates |= found
        outputs = layers[-1].outputs
        odds = probabilities if settings.negatives == "hard" else odds
    wrong = wrong_labels(labels, batch.samples, key.at("wrong label"), odds)
    passes: dict[str, tuple[Layer, ...]] = {}
    for phase, driven in (("positive", labels), ("negative", wrong)):
        with substrate.ledger.phase(phase):
            passes[phase] = substrate.layers(
                batch.inputs,
                samples=batch.samples,
                key=key.at(phase),
                labels=embed(driven, maps.classes, settings.label_amplitude),
                depth=len(maps.trained),
            )
    means, losses, goodness = [], np.zeros(len(batch)), []
    with substrate.ledger.phase("update"):
        for one, mean, right, left in zip(maps.trained, state.means, passes["positive"], passes["negative"], strict=True):
            mean = settings.decay * mean + (1.0 - settings.decay) * activity_of(right.outputs).mean(axis=0)
            loss, change, pair = local_update(right, left, settings, mean)
            estimates |= {one.weight: change, **({one.bias: change.left.mean(axis=0)} if one.bias else {})}
            means.append(mean)
            losses = losses + loss
            goodness.append(pair)
            # of both passes, per value: square and factor; response, running mean and peer term
            count_host(substrate.ledger, macs=4 * right.outputs.size, operations=4 * right.outputs.size)
    if outputs is None:
        counted = _counted(settings, goodness)
        right_sum, wrong_sum = (np.sum([pair[side] for pair in counted], axis=0) for side in (0, 1))
        outputs = two_scores(labels, wrong, right_sum, wrong_sum, -1.0, maps.classes)
    return Update(State(tuple(means)), estimates, Diagnostics(float(losses.mean()) / len(maps.trained), outputs))


def activity_of(outputs: Array) -> Floats:
    """h (batch, width)."""
    return np.maximum(np.asarray(outputs, dtype=np.float64), 0.0)


def local_update(
    positive: Layer, negative: Layer, settings: Settings, mean: Floats
) -> tuple[Floats, Outer, tuple[Floats, Floats]]:
    """C of each sample (batch,), the gradient of its mean with respect to the map, and the goodness of both passes.

    Only what is measured at the two ends of the map enters, and `mean` (width,), the running mean of its activity.
    """
    right, wrong = (activity_of(one.outputs) for one in (positive, negative))
    right_sum, wrong_sum = (right**2).sum(axis=1), (wrong**2).sum(axis=1)
    units = right.shape[1]
    edge, temperature = units * settings.threshold, units * settings.temperature
    above, below = (right_sum - edge) / temperature, (edge - wrong_sum) / temperature
    push = -2.0 / temperature * expit(-above)[:, None] * right
    pull = 2.0 / temperature * expit(-below)[:, None] * wrong
    # also where a unit is silent: this is what wakes it
    push = push + settings.peer * (mean - mean.mean())
    # the mean over the rows of both passes is half of each
    estimate = Outer(np.concatenate([push, pull]), np.concatenate([positive.features, negative.features]))
    return 0.5 * (np.logaddexp(0.0, -above) + np.logaddexp(0.0, -below)), estimate, (right_sum, wrong_sum)


def predict(substrate: Any, maps: Maps, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, classes): the goodness of every label, or the head's outputs.

    Every label is a pass through the trained maps: classes x maps passes per sample; the head takes one pass through all. All
    labels of a sample are read in one call, each under read noise of its own.
    """
    if settings.score == "head":
        labels = neutral(len(inputs), maps.classes, settings.label_amplitude)
        layers = substrate.layers(inputs, samples=samples, key=key, labels=labels)
        return layers[-1].outputs  # type: ignore[no-any-return]
    tried, drives, again = every_label(inputs, samples, maps.classes, settings.label_amplitude)
    layers = substrate.layers(tried, samples=again, key=key, labels=drives, depth=len(maps.trained))
    total = np.zeros(len(tried))
    for layer in _counted(settings, layers):
        total += (activity_of(layer.outputs) ** 2).sum(axis=1)
        count_host(substrate.ledger, macs=layer.outputs.size, operations=layer.outputs.size)
    return total.reshape(maps.classes, len(inputs)).T.copy()


def _counted(settings: Settings, layers: Sequence[Any]) -> Sequence[Any]:
    """Those of the trained maps whose goodness makes a prediction."""
    return layers[1:] if settings.skip_first and len(layers) > 1 else layers
