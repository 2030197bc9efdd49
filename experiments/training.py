"""How a run trains and is judged: epochs, probes, evaluation, deployment."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import CALIBRATION_ROWS, Parts, calibrate, first_values, write_values
from inmaterio.experiments.disturbing import disturb_chip, recalibrate_chip
from inmaterio.experiments.metrics import metric, metric_name
from inmaterio.experiments.other_predictors import attribute_of
from inmaterio.experiments.probe import PROBE_ROWS, ask, check_outputs, probe
from inmaterio.learning_rules.contract import Rule
from inmaterio.learning_rules.optimisers import InPlace, MasterCopy
from inmaterio.learning_rules.schedules import group_of, schedule
from inmaterio.simulators.capabilities import Array, Request, Write
from inmaterio.simulators.digital_twin import batch_loss, to_tensor

EVALUATION_ROWS = 100
"""Rows predicted at once: a fixed number, so that results do not depend on the batch of training."""

INFERENCE_ROWS = 100
"""Most test rows that are predicted once more, charged, for the energy of an inference."""

FINAL_CURVES = ("updates", "device_passes", "modelled_time_s", "residual_max", "unsettled_fraction", "symmetry")
"""What is said of a run as it stands at the end."""


@final
class TrainingFailed(InputError):
    """What training made of the substrate cannot be trained on or judged: it diverged, ran away, or did not settle."""


@contextlib.contextmanager
def failing_as_training() -> Iterator[None]:
    """Tell what goes wrong inside, after a run has begun well, from what keeps a run from being done at all."""
    try:
        yield
    except InputError as error:
        raise TrainingFailed(str(error)) from error


@dataclass(slots=True, eq=False)
class Course:
    """How far a run has come: everything that changes while it trains, apart from what the substrates hold."""

    state: Any
    optimiser: MasterCopy | InPlace | None
    epoch: int
    step: int
    history: list[dict[str, float]]
    ledgers: list[dict[str, list[list[str | float]]]]
    probes: list[dict[str, Any]]
    seconds: float
    trained: list[str]


def make_optimiser(parts: Parts, initial: Mapping[str, Array]) -> MasterCopy | InPlace | None:
    training = parts.config.training
    if parts.entry.programs:
        if training.trained != "all":
            raise InputError(
                f"rule {parts.entry.name!r} writes by itself: no layer can be frozen; expected training.trained 'all'"
            )
        return None
    if training.write_mode == "in place":
        return InPlace(parts.learner.parameters, rates=parts.rates, ledger=parts.ledger)
    for name in parts.rates:
        accepts = parts.learner.parameters[name].accepts
        if "Write" not in accepts:
            raise InputError(
                f"{name} takes only {', '.join(accepts)}: a master copy cannot be written; expected write_mode 'in place'"
            )
    return MasterCopy(
        parts.learner.parameters,
        initial,
        rates=parts.rates,
        ledger=parts.ledger,
        optimiser=training.optimiser,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        undecayed=[name for name in parts.rates if not group_of(name, parts.entry.groups).decayed],
    )


def begin(parts: Parts) -> Course:
    """A run before its first epoch: first values written, the features of a digital readout measured, the gradient probed."""
    initial = first_values(parts.config, parts.learner.parameters)
    seed = Key(parts.config.seed)
    with parts.ledger.phase("initialise"):
        if parts.config.training.placement == "digital-readout":
            _prepare_features(parts)
        write_values(parts.learner, initial, seed.at("program", "initialise"))
        if parts.config.training.placement == "chip" and callable(getattr(parts.learner, "calibrate", None)):
            rows = parts.fitted[:CALIBRATION_ROWS]
            parts.learner.calibrate(parts.encoding.encode(parts.dataset.inputs[rows]), rows, seed.at("calibrate"))
    course = Course(parts.rule.init(seed.at("rule")), make_optimiser(parts, initial), 0, 0, [], [], [], 0.0, [])
    _probe(parts, course)
    return course


def _prepare_features(parts: Parts) -> None:
    """Give the physical substrate the first values that training it would begin with, and measure its features once."""
    physical, seed = parts.learner.physical, Key(parts.config.seed)
    rows = parts.fitted[:CALIBRATION_ROWS]
    inputs = parts.encoding.encode(parts.dataset.inputs[rows])
    if callable(getattr(physical, "calibrate", None)):
        calibrate(physical, parts.config, inputs, rows)
    elif "Program" in physical.capabilities:
        values = first_values(parts.config, physical.parameters)
        write_values(physical, values, seed.at("program", "initialise"))
    parts.learner.calibrate(inputs, rows, seed.at("calibrate"))


def train_epoch(parts: Parts, course: Course) -> None:
    """Train on every row once, then record; where training is over, record only. Then the chip is disturbed, if it is time."""
    if parts.config.disturbance.rests(course.epoch):
        _rest(parts, course)
        return
    training, seed, ledger = parts.config.training, Key(parts.config.seed), parts.ledger
    order = parts.fitted[seed.at("order", course.epoch).generator().permutation(len(parts.fitted))]
    batches = [order[i : i + training.batch_size] for i in range(0, len(order), training.batch_size)]
    total = training.epochs * len(batches)
    losses, unsettled, residual, outputs, symmetries = 0.0, 0.0, 0.0, [], []
    for rows in batches:
        with ledger.phase("train"):
            key = seed.at("noise", course.step)
            update = ask(parts.rule, parts.entry.name, course.state, parts.batch(rows), key, parts.learner.parameters)
            course.state = update.state
            course.trained += [name for name in update.estimates if name in parts.rates and name not in course.trained]
            if course.optimiser is not None:
                estimates = {name: one for name, one in update.estimates.items() if name in parts.rates}
                with ledger.phase("update"):
                    requests: dict[str, Request] = course.optimiser.step(estimates, _rate_factors(parts, course.step, total))
                    parts.learner.program(requests, key=seed.at("program", course.step))
        course.step += 1
        noticed = update.diagnostics
        losses += noticed.loss * len(rows)
        unsettled += noticed.unsettled * len(rows)
        residual = max(residual, noticed.residual)
        outputs.append(noticed.outputs)
        symmetries.append(noticed.symmetry)
    course.epoch += 1
    if training.placement == "twin-deployed" and (
        course.epoch == training.epochs or parts.config.disturbance.rests(course.epoch)
    ):
        _deploy_twin(parts, course)
    # the substrate's time; a host's is not modelled, so that training in a host has none
    seconds = ledger.total("second", "train")
    course.history.append(
        {
            "train_loss": losses / len(order),
            "train_error": _error(parts, np.concatenate(outputs), parts.answers[order]),
            "validation_error": _validation_error(parts, course),
            "disturbed_error": np.nan,
            "residual_max": residual,
            "unsettled_fraction": unsettled / len(order),
            "symmetry": float(np.mean(symmetries)),
            "updates": float(course.step),
            "device_passes": float(ledger.total("device_pass", "train")),
            "modelled_time_s": seconds if seconds > 0 and training.placement != "twin-deployed" else np.nan,
        }
    )
    _probe(parts, course)
    _disturb(parts, course)
    course.ledgers.append(ledger.to_records())


def _rate_factors(parts: Parts, step: int, total: int) -> dict[str, float]:
    """What multiplies the rate of each parameter at an update: the schedule of its group, or else of the run."""
    chosen = {name: group_of(name, parts.entry.groups).schedule or parts.config.training.schedule for name in parts.rates}
    factors = {name: schedule(name, step, total) for name in set(chosen.values())}
    return {name: factors[one] for name, one in chosen.items()}


def _rest(parts: Parts, course: Course) -> None:
    """An epoch after the end of training: the chip is only looked at."""
    course.epoch += 1
    untrained = {"train_loss": np.nan, "train_error": np.nan, "disturbed_error": np.nan}
    course.history.append({**course.history[-1], **untrained, "validation_error": _validation_error(parts, course)})
    _disturb(parts, course)
    course.ledgers.append(parts.ledger.to_records())


def _validation_error(parts: Parts, course: Course) -> float:
    """Error on the validation rows; not a number where they are trained on, or the chip does not hold what is trained."""
    training = parts.config.training
    away = training.placement == "twin-deployed" and not parts.config.disturbance.rests(course.epoch)
    if training.fit_on != "train" or not len(parts.split.validation) or away:
        return np.nan
    key = Key(parts.config.seed).at("validation", course.epoch)
    return evaluate(parts, parts.deployed, course.state, parts.split.validation, key)[0]


def _disturb(parts: Parts, course: Course) -> None:
    """Change the chip if it is time; the error right after is measured with the same noise as the one right before."""
    if disturb_chip(parts, course.epoch):
        course.history[-1]["disturbed_error"] = _validation_error(parts, course)
        recalibrate_chip(parts, course.epoch)


def _probe(parts: Parts, course: Course) -> None:
    if course.epoch in parts.config.training.probes():
        batch = parts.batch(parts.fitted[:PROBE_ROWS])
        key = Key(parts.config.seed).at("probe")
        cosine = probe(parts.rule, parts.entry.name, course.state, parts.learner, parts.chip, batch, parts.loss, key)
        course.probes.append({"epoch": course.epoch, "cosine": cosine})


def _error(parts: Parts, outputs: Array, answers: Array) -> float:
    return metric(parts.dataset.task, parts.targets.decode(outputs), answers)


def predict(parts: Parts, rule: Rule, state: Any, rows: Array, key: Key) -> Array:
    """Scores of rows of the data set, in batches of a fixed size."""
    groups = [rows[i : i + EVALUATION_ROWS] for i in range(0, len(rows), EVALUATION_ROWS)]
    scores = []
    for group in groups:
        scores.append(rule.predict(state, parts.encoding.encode(parts.dataset.inputs[group]), group, key))
        check_outputs(parts.entry.name, scores[-1], (len(group), parts.chip.ports["output"].size))
    return np.concatenate(scores)


def evaluate(parts: Parts, rule: Rule, state: Any, rows: Array, key: Key) -> tuple[float, float]:
    """Metric and mean loss on rows of the data set against their true answers; shown in the ledger, not charged."""
    with parts.ledger.phase("evaluate"):
        scores = predict(parts, rule, state, rows, key)
    answers = parts.dataset.answers[rows]
    import torch

    outputs, targets = to_tensor(scores, torch.float64), to_tensor(parts.targets.encode(answers), torch.float64)
    return _error(parts, scores, answers), float(batch_loss(parts.loss, outputs, targets, parts.chip.ports["output"]))


def _deploy_twin(parts: Parts, course: Course) -> None:
    """Write what the twin learned onto the chip, once; charged to training."""
    with parts.ledger.phase("train"), parts.ledger.phase("update"):
        deploy(
            parts.learner.read_back(key=Key(parts.config.seed).at("twin")),
            parts.chip,
            Key(parts.config.seed).at("program", "deploy"),
        )


def deploy(values: Mapping[str, Array], substrate: Any, key: Key) -> None:
    """Write trained values onto any substrate with the same parameters; the caller opens the phase.

    Raises
    ------
    InputError
        When a parameter is missing or of another shape.
    """
    for name, parameter in substrate.parameters.items():
        if name not in values or np.shape(values[name]) != tuple(parameter.shape):
            found = f"has shape {np.shape(values[name])}" if name in values else "is missing"
            raise InputError(f"cannot deploy: {name} {found}; expected shape {tuple(parameter.shape)}")
    substrate.program({name: Write(np.asarray(values[name])) for name in substrate.parameters}, key=key)


def conclude(parts: Parts, course: Course) -> dict[str, float | int | str]:
    """Evaluate once, infer once, and say what came out."""
    training, seed = parts.config.training, Key(parts.config.seed)
    error, loss = evaluate(parts, parts.deployed, course.state, parts.evaluated, seed.at("evaluate"))
    others = {
        attribute_of(training.evaluate_on, name): evaluate(
            parts, parts.deployed._replace(predict=other), course.state, parts.evaluated, seed.at("evaluate", name)
        )[0]
        for name, other in parts.deployed.others.items()
    }
    if training.evaluate_on == "test":
        with parts.ledger.phase("infer"):
            predict(parts, parts.deployed, course.state, parts.evaluated[:INFERENCE_ROWS], seed.at("infer"))
    last = course.history[-1]
    about = parts.learner.parameters
    trained = [about[name] for name in (about if parts.entry.programs else course.trained)]
    return {
        f"{training.evaluate_on}_error": error,
        f"{training.evaluate_on}_loss": loss,
        **others,
        "chance_error": parts.targets.chance_error,
        "metric": metric_name(parts.dataset.task),
        "task": parts.dataset.task,
        "loss": parts.loss,
        "data": parts.dataset.name,
        **({"data_notes": "; ".join(parts.dataset.notes)} if parts.dataset.notes else {}),
        "rule": parts.entry.name,
        "substrate": parts.config.substrate.name,
        "twin_fidelity": float(np.mean(fidelity)) if (fidelity := getattr(parts.chip, "fidelity", ())) else np.nan,
        "trained_digital": sum(math.prod(one.shape) for one in trained if one.digital),
        "trained_physical": sum(math.prod(one.shape) for one in trained if not one.digital),
        "inference_samples": parts.ledger.total("sample", "infer"),
        **{name: last[name] for name in FINAL_CURVES},
    }


def requested_values(parts: Parts, course: Course) -> dict[str, Array]:
    """What was asked of the chip, as far as anyone knows: what it says, else its twin's values, else the master copy's."""
    if isinstance(said := getattr(parts.chip, "requested", None), Mapping):
        return {name: np.asarray(said[name]).copy() for name in parts.chip.parameters}
    if "Twin" in parts.chip.capabilities:
        held = {name.replace(".", "/"): tensor for name, tensor in parts.chip.twin().named_parameters()}
        return {name: held[name].detach().numpy().copy() for name in parts.chip.parameters if name in held}
    return course.optimiser.values() if isinstance(course.optimiser, MasterCopy) else {}
