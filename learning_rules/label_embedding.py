"""Labels driven in beside the data: what rules share that learn to tell right labels from wrong ones.

A label is a row of zeros with the amplitude in one place. The amplitude is a constant of the rule, never taken from the
batch, so that what is predicted for a sample depends on that sample alone. A neutral label is the mean over all classes.

Layers are trained by a goodness of their own; above them the readout map may learn as a softmax head, by the delta rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key, uniforms
from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.learning_rules.delta_rule import Readout, losses_and_error
from inmaterio.simulators.capabilities import Array, Estimate, Layer, Outer, Parameter, Samples

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

SCORES = ("goodness", "head")
"""What a prediction is: the goodness of every label in turn, or the outputs of the head under the neutral label."""


class Map(NamedTuple):
    """One known linear map by the names of its parameters; `bias` is empty where there is none."""

    weight: str
    bias: str
    width: int


@dataclass(frozen=True, slots=True)
class Maps:
    """Which maps learn by their goodness, and which is the readout.

    Attributes
    ----------
    trained : tuple of Map
        Every map before the readout; the only one where there is no other.
    readout : Map or None
        The last map, when there is one before it.
    classes : int
        Size of the output.
    """

    trained: tuple[Map, ...]
    readout: Map | None
    classes: int


def find_maps(substrate: Any, rule: str, *, head: bool, score: str, amplitude: float) -> Maps:
    """The maps of a substrate, after a look at what every rule of this kind is asked for.

    Parameters
    ----------
    substrate : Substrate
        With the trait ``mapped``.
    rule : str
        Name of the rule, for messages.
    head : bool
        Whether the readout map shall learn as a softmax head.
    score : str
        One of `SCORES`.
    amplitude : float
        Drive of a label, in (0, 1] of full drive.

    Raises
    ------
    InputError
        When there are fewer than two classes, a score or head is asked for that cannot be, or the amplitude is out of range.
    """
    check_name("score", score, SCORES)
    check_range("label_amplitude", amplitude, low=0.0, high=1.0, low_open=True)
    classes = int(substrate.ports["output"].size)
    if classes < 2:
        raise InputError(f"{rule} tells classes apart; the substrate has {classes} output, expected at least 2, one per class")
    maps = _by_layer(substrate.parameters)
    if head and len(maps) == 1:
        raise InputError(f"{rule} has one map, which learns by its goodness; expected head = false, or a hidden layer before it")
    if score == "head" and not head:
        raise InputError(f"{rule} has score 'head' without a head; expected head = true, or score 'goodness'")
    return Maps(maps[:-1] or maps, maps[-1] if len(maps) > 1 else None, classes)


def _by_layer(parameters: Mapping[str, Parameter]) -> tuple[Map, ...]:
    found = []
    for layer in sorted({one.layer for one in parameters.values()}):
        here = {name: one for name, one in parameters.items() if one.layer == layer}
        weights = [name for name, one in here.items() if len(one.shape) == 2]
        biases = [name for name, one in here.items() if len(one.shape) == 1]
        if len(weights) != 1 or len(biases) > 1:
            raise InputError(f"layer {layer} has {len(weights)} couplings and {len(biases)} biases; expected one map per layer")
        found.append(Map(weights[0], biases[0] if biases else "", here[weights[0]].shape[0]))
    return tuple(found)


def true_labels(rule: str, targets: Array, classes: int) -> Labels:
    """Class of each row of one-hot targets (batch, classes), whatever their two levels.

    Raises
    ------
    InputError
        When the targets are not one-hot, as those of a regression are.
    """
    wanted = np.asarray(check_array("target", targets, shape=(None, classes)))
    high = wanted == wanted.max()
    if not (high | (wanted == wanted.min())).all() or not (high.sum(axis=1) == 1).all():
        raise InputError(
            f"{rule} needs classes: targets are not one-hot; expected one place per row at one level, the rest at another"
        )
    return np.asarray(np.argmax(high, axis=1), dtype=np.int64)


def embed(labels: Labels, classes: int, amplitude: float) -> Floats:
    """Drives (batch, classes) of labels."""
    return np.where(labels[:, None] == np.arange(classes), amplitude, 0.0)


def neutral(batch: int, classes: int, amplitude: float) -> Floats:
    """Drives (batch, classes) of a label that names no class: amplitude / classes everywhere."""
    return np.full((batch, classes), amplitude / classes)


def wrong_labels(labels: Labels, samples: Samples, key: Key, odds: Array) -> Labels:
    """A wrong label for each sample, drawn in proportion to `odds` (batch, classes) among the wrong classes.

    The draw is that of the sample: it does not depend on the others in its batch. Where every wrong class has odds zero
    they count as equal.
    """
    batch, classes = np.shape(odds)
    weights = np.array(odds, dtype=np.float64)
    weights[np.arange(batch), labels] = 0.0
    lost = weights.sum(axis=1) == 0.0
    weights[lost] = labels[lost, None] != np.arange(classes)
    edges = np.cumsum(weights, axis=1)
    drawn = uniforms(key, samples, 1) * edges[:, -1:]
    # the first place whose edge lies above the draw has a width of its own, so that it is no true class
    return np.asarray(np.argmax(edges > drawn, axis=1), dtype=np.int64)


def every_label(inputs: Array, samples: Samples, classes: int, amplitude: float) -> tuple[Array, Floats, Samples]:
    """Inputs, label drives and samples of every candidate behind one another: (classes batch, ...).

    One call reads them all, so that a sample tried with every label counts as one sample.
    """
    batch = len(inputs)
    labels = np.repeat(np.arange(classes), batch)
    return np.tile(inputs, (classes, 1)), embed(labels, classes, amplitude), np.tile(samples, classes)


def head_estimates(readout: Map, layer: Layer, targets: Array) -> tuple[dict[str, Estimate], Floats]:
    """Softmax regression from what enters the readout map: estimates, and the probability of each class (batch, classes)."""
    _, error = losses_and_error(Readout(readout.weight, readout.bias, "cross_entropy", True), layer.outputs, targets)
    estimates: dict[str, Estimate] = {readout.weight: Outer(error, layer.features)}
    if readout.bias:
        estimates[readout.bias] = error.mean(axis=0)
    return estimates, error + targets


def two_scores(labels: Labels, wrong: Labels, right_goodness: Array, wrong_goodness: Array, least: float, classes: int) -> Floats:
    """Scores (batch, classes) known after one right and one wrong label: theirs, and `least` for labels that were not tried."""
    scores = np.full((len(labels), classes), least)
    rows = np.arange(len(labels))
    scores[rows, labels], scores[rows, wrong] = right_goodness, wrong_goodness
    return scores


def count_host(ledger: Ledger, *, macs: int, operations: int) -> None:
    """Count the host's work on goodness, under role ``"host"``."""
    ledger.count("host", "host goodness", "mac_fp32", macs)
    ledger.count("host", "host goodness", "alu_fp32", operations)
