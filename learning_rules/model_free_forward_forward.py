"""Model-free forward-forward: each map learns to answer the right label along its own fixed direction (physical local learning).

A label is driven in beside the data, once the right one (positive), once a wrong one (negative). With y what leaves a map,
a what enters it as measured behind the physics, and p the map's own fixed random unit vector,

    z = |y|  or  y                                      g = z . p / |z|            goodness, a cosine
    C = log(1 + exp(-theta (g+ - g-)))                  s = sigmoid(-theta (g+ - g-))
    dg/dy = sign(y) (p / |z| - g z / |z|^2)             (sign(y) for z = |y| only)
    g_W = mean theta s [(dg-/dy) (x) a-  -  (dg+/dy) (x) a+],     g_b = mean theta s [dg-/dy - dg+/dy]

for every map on its own: nothing passes backwards, and of the physics no more is asked than to be driven and read. The
class predicted is the label with the largest sum of goodness over the trained maps: classes x maps passes per sample.

All maps before the readout learn so (the only map where there is one). The readout map is left alone unless `head` asks for
a softmax head: then it learns by the delta rule from a third pass under a neutral label, and may predict from one pass. A head
reads what the trained maps' outputs drive; where only their magnitudes are passed on it finds little there, since it is the
magnitudes that training makes alike for every class.

With ``nonnegative`` (the default) p = |p|: z = |y| can then point along p, and g lies between the least element of p and 1.
With p of both signs g reaches no further than the norm of p's positive part, near 0.71, but falls as far below zero.

Source: Momeni, Rahmani, Mallejac, del Hougne and Fleury, Science 382, 1297 (2023). There the amplitude of a label follows the
batch, p has both signs, and each batch is used for 10 to 25 steps; here it is a constant, p has one sign, and there is one step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from inmaterio.devices.randomness import Key, normal_array
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
    "theta": 4.0,
    "label_amplitude": 1.0,
    "goodness": "magnitude",
    "nonnegative": True,
    "head": False,
    "score": "goodness",
}
PROGRAMS = False
GOODNESS = ("magnitude", "identity")
NAME = "model-free forward-forward"


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of one rule.

    Attributes
    ----------
    theta : float
        Steepness of the loss, > 0.
    label_amplitude : float
        Drive of a label, in (0, 1] of full drive.
    goodness : str
        One of `GOODNESS`: whether the cosine is taken of the magnitude of a map's outputs or of the outputs themselves.
    nonnegative : bool
        Whether the directions have no negative element.
    head : bool
        Whether the readout map learns as a softmax head.
    score : str
        One of `label_embedding.SCORES`.
    """

    theta: float
    label_amplitude: float
    goodness: str
    nonnegative: bool
    head: bool
    score: str


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What never changes while the rule learns.

    Attributes
    ----------
    directions : tuple of ndarray, each (width,)
        Unit vector p of every trained map.
    """

    directions: tuple[Floats, ...]


def build(
    *,
    substrate: Any,
    theta: float = 4.0,
    label_amplitude: float = 1.0,
    goodness: str = "magnitude",
    nonnegative: bool = True,
    head: bool = False,
    score: str = "goodness",
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
    check_range("theta", theta, low=0.0, low_open=True, high_open=True)
    check_name("goodness", goodness, GOODNESS)
    maps = find_maps(substrate, NAME, head=head, score=score, amplitude=label_amplitude)
    settings = Settings(theta, label_amplitude, goodness, nonnegative, head, score)
    return Rule(
        partial(init, maps, settings), partial(update, substrate, maps, settings), partial(predict, substrate, maps, settings)
    )


def init(maps: Maps, settings: Settings, key: Key) -> State:
    """A direction for every trained map, drawn uniformly from the unit sphere, or from its part without negative elements."""
    directions = []
    for k, one in enumerate(maps.trained, start=1):
        drawn = normal_array(key.at("direction", k), (one.width,))
        drawn = np.abs(drawn) if settings.nonnegative else drawn
        directions.append(drawn / np.linalg.norm(drawn))
    return State(tuple(directions))


def update(substrate: Any, maps: Maps, settings: Settings, state: State, batch: Batch, key: Key) -> Update:
    """A positive and a negative pass, and under ``head`` one under the neutral label in phase ``free``.

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
    wrong = wrong_labels(labels, batch.samples, key.at("wrong label"), np.ones((len(batch), maps.classes)))
    depth = len(maps.trained)
    passes: dict[str, tuple[Layer, ...]] = {}
    for phase, driven in (("positive", labels), ("negative", wrong)):
        with substrate.ledger.phase(phase):
            passes[phase] = substrate.layers(
                batch.inputs,
                samples=batch.samples,
                key=key.at(phase),
                labels=embed(driven, maps.classes, settings.label_amplitude),
                depth=depth,
            )
    estimates: dict[str, Estimate] = {}
    losses, right_sum, wrong_sum = np.zeros(len(batch)), np.zeros(len(batch)), np.zeros(len(batch))
    with substrate.ledger.phase("update"):
        for one, direction, right, left in zip(
            maps.trained, state.directions, passes["positive"], passes["negative"], strict=True
        ):
            loss, changes, pair = local_update(right, left, direction, theta=settings.theta, goodness=settings.goodness)
            estimates |= {one.weight: changes, **({one.bias: bias_of(changes)} if one.bias else {})}
            losses, right_sum, wrong_sum = losses + loss, right_sum + pair[0], wrong_sum + pair[1]
            # of both passes, per value: two products of the cosine, two of its slope; magnitude, sign, factor
            count_host(substrate.ledger, macs=8 * right.outputs.size, operations=6 * right.outputs.size)
    if settings.head:
        assert maps.readout is not None
        with substrate.ledger.phase("free"):
            layers = substrate.layers(
                batch.inputs,
                samples=batch.samples,
                key=key.at("free"),
                labels=neutral(len(batch), maps.classes, settings.label_amplitude),
            )
        found, _ = head_estimates(maps.readout, layers[-1], embed(labels, maps.classes, 1.0))
        estimates |= found
        outputs = layers[-1].outputs
    else:
        outputs = two_scores(labels, wrong, right_sum, wrong_sum, -float(depth), maps.classes)
    return Update(state, estimates, Diagnostics(float(losses.mean()) / depth, outputs))


def local_update(
    positive: Layer, negative: Layer, direction: Floats, *, theta: float, goodness: str
) -> tuple[Floats, Outer, tuple[Floats, Floats]]:
    """Loss of each sample (batch,), the gradient of its mean with respect to the map, and the goodness of both passes.

    Only what is measured at the two ends of the map enters.
    """
    right, right_slope = goodness_and_slope(positive.outputs, direction, goodness)
    wrong, wrong_slope = goodness_and_slope(negative.outputs, direction, goodness)
    gap = theta * (right - wrong)
    push = theta * expit(-gap)[:, None]
    left = np.concatenate([-push * right_slope, push * wrong_slope])
    # the mean over both passes has twice the rows
    estimate = Outer(left, np.concatenate([positive.features, negative.features]), 2.0)
    return np.logaddexp(0.0, -gap), estimate, (right, wrong)


def bias_of(estimate: Outer) -> Floats:
    """The gradient with respect to a bias, whose right factor is 1."""
    return np.asarray(estimate.scale * estimate.left.mean(axis=0))


def goodness_and_slope(outputs: Array, direction: Floats, goodness: str) -> tuple[Floats, Floats]:
    """g (batch,) and dg/dy (batch, width); both 0 where every output is 0."""
    y = np.asarray(outputs, dtype=np.float64)
    z = np.abs(y) if goodness == "magnitude" else y
    size = np.linalg.norm(z, axis=1)
    inverse = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    g = (z @ direction) * inverse
    slope = inverse[:, None] * direction - (g * inverse**2)[:, None] * z
    return g, slope * np.sign(y) if goodness == "magnitude" else slope


def predict(substrate: Any, maps: Maps, settings: Settings, state: State, inputs: Array, samples: Samples, key: Key) -> Array:
    """Scores (batch, classes): the goodness of every label summed over the trained maps, or the head's outputs.

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
    for layer, direction in zip(layers, state.directions, strict=True):
        total += goodness_and_slope(layer.outputs, direction, settings.goodness)[0]
        count_host(substrate.ledger, macs=2 * layer.outputs.size, operations=layer.outputs.size)
    return total.reshape(maps.classes, len(inputs)).T.copy()
