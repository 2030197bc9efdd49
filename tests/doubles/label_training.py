"""A physical network, a rule that drives labels, and digits: what the tests of such rules train with."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.experiments.data import load_data, split
from inmaterio.experiments.encodings import fit_encoding, fit_targets
from inmaterio.learning_rules.contract import Batch
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.optimisers import MasterCopy
from inmaterio.simulators.capabilities import Layer, Port, Write

KEY = Key(3)
RNG = np.random.default_rng(0)
SAMPLES = np.array([5, 0, 9, 2, 7, 11, 3, 8])
BATCH = Batch(RNG.uniform(-1, 1, (8, 6)), np.eye(3)[np.arange(8) % 3], SAMPLES)


class Listener:
    """A substrate whose readings of layers are noted, with the phase they were made in and what was driven."""

    def __init__(self, substrate: Any) -> None:
        self._substrate = substrate
        self.heard: list[tuple[str, dict[str, Any], tuple[Layer, ...]]] = []

    def layers(self, inputs: Any, **options: Any) -> tuple[Layer, ...]:
        found: tuple[Layer, ...] = self._substrate.layers(inputs, **options)
        self.heard.append((self._substrate.ledger.current, {"inputs": np.array(inputs), **options}, found))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._substrate, name)


def begin(substrate: Any, batch: Batch = BATCH, gain: float = 0.5) -> dict[str, Any]:
    """First values, programmed; detectors calibrated; a ledger of its own."""
    substrate.attach(Ledger(), "substrate")
    initial = initial_values(substrate.parameters, key=KEY.at("init"), gain=gain)
    with substrate.ledger.phase("initialise"):
        substrate.program({name: Write(values) for name, values in initial.items()}, key=KEY)
        substrate.calibrate(batch.inputs, batch.samples, KEY.at("calibrate"))
    return dict(initial)


def train(substrate: Any, rule: Any, initial: Any, batches: list[Batch], rate: float) -> tuple[Any, list[float]]:
    """One update per batch with torch's Adam on a master copy; the last state, and the loss of every update."""
    rates = dict.fromkeys(substrate.parameters, rate)
    optimiser = MasterCopy(substrate.parameters, initial, rates=rates, ledger=substrate.ledger, optimiser="adam")
    state, losses = rule.init(KEY.at("rule")), []
    for step, batch in enumerate(batches):
        with substrate.ledger.phase("train"):
            found = rule.update(state, batch, KEY.at("noise", step))
            state = found.state
            losses.append(found.diagnostics.loss)
            with substrate.ledger.phase("update"):
                substrate.program(optimiser.step(found.estimates), key=KEY)
    return state, losses


@dataclass(frozen=True)
class Digits:
    """Some of the 8 x 8 digits, encoded; `given` are the training rows as they are trained on."""

    given: Batch
    tested: Batch
    answers: Any

    def batches(self, epochs: int, size: int) -> list[Batch]:
        found = []
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(len(self.given))
            for rows in (order[i : i + size] for i in range(0, len(order), size)):
                found.append(Batch(self.given.inputs[rows], self.given.targets[rows], self.given.samples[rows]))
        return found

    def right(self, substrate: Any, rule: Any, state: Any) -> int:
        """Test rows that are told right."""
        with substrate.ledger.phase("evaluate"):
            scores = rule.predict(state, self.tested.inputs, self.tested.samples, KEY.at("test"))
        return int((scores.argmax(axis=1) == self.answers).sum())


def digits(rows: int, *, shuffled: bool = False) -> Digits:
    """The first rows for training, all 360 test rows."""
    data = load_data("digits")
    parts = split(data, split_seed=0, validation_fraction=0.0)
    fitted, answers = parts.train[:rows], np.array(data.answers)
    if shuffled:
        answers[fitted] = answers[fitted[np.random.default_rng(0).permutation(rows)]]
    encoding = fit_encoding(data.inputs[fitted], Port(64, "1", -1.0, 1.0))
    targets = fit_targets(answers[fitted], Port(10, "1", -np.inf, np.inf), classes=10)
    given, tested = (Batch(encoding.encode(data.inputs[i]), targets.encode(answers[i]), i) for i in (fitted, parts.test))
    return Digits(given, tested, data.answers[parts.test])
