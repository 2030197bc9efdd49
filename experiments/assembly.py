"""From a configuration to the parts of a run: data, encodings, substrates on a ledger, the rule."""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inmaterio.devices.ledger import Ledger
from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.experiments.configuration import RunConfig, SubstrateConfig
from inmaterio.experiments.data import Dataset, Split, load_data, split
from inmaterio.experiments.encodings import InputEncoding, TargetEncoding, fit_encoding, fit_targets, scheme_for
from inmaterio.experiments.registry import RuleEntry, call, find_rule, find_substrate
from inmaterio.learning_rules.contract import Batch, Rule
from inmaterio.learning_rules.initialisation import initial_values
from inmaterio.learning_rules.schedules import group_of
from inmaterio.simulators.capabilities import Array, Parameter, Substrate, Write
from inmaterio.simulators.digital import DigitalSubstrate, TwinSubstrate
from inmaterio.simulators.digital_readout import DigitalReadout
from inmaterio.simulators.measurable import Measurable, calls_of

EXPECTED = tuple(name for name in vars(Substrate) if not name.startswith("_"))
"""What every substrate has, by name."""

CALIBRATION_ROWS = 1000
"""Most training rows on which detectors and features are standardised."""

TRAINING_CHIPS, OTHER_CHIPS = "chip", "other chip"
"""Streams of static errors: of the chips that networks are trained on, and of those that trained ones are written to. Chip 0 of
one is not chip 0 of the other."""


@functools.lru_cache(maxsize=2)
def dataset_of(name: str) -> Dataset:
    """A data set, read once for all runs of this process; nobody writes into it."""
    return load_data(name)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a run is made of.

    Attributes
    ----------
    config : RunConfig
    dataset : Dataset
    split : Split
    fitted, evaluated : ndarray of int64
        Rows trained on and rows the run ends on.
    answers : ndarray
        Labels or targets of every row of the data set as training sees them: shuffled among the fitted rows on request.
    encoding, targets : InputEncoding, TargetEncoding
        Fitted on the fitted rows.
    ledger : Ledger
        Where every substrate counts.
    substrates : mapping of str to substrate
        By role of the rule; that of the learning role has a digital readout behind it when the placement asks for one.
    learner : substrate
        Whose parameters are trained: that of the learning role, or its digital twin.
    chip : substrate
        What predicts in the end.
    entry : RuleEntry
    rule, deployed : Rule
        On the learner, and on the chip; the same unless the twin is trained.
    loss : str
    rates : dict of str to float
        Learning rate of each trained parameter.
    """

    config: RunConfig
    dataset: Dataset
    split: Split
    fitted: np.ndarray[Any, np.dtype[np.int64]]
    evaluated: np.ndarray[Any, np.dtype[np.int64]]
    answers: Array
    encoding: InputEncoding
    targets: TargetEncoding
    ledger: Ledger
    substrates: Mapping[str, Any]
    learner: Any
    chip: Any
    entry: RuleEntry
    rule: Rule
    deployed: Rule
    loss: str
    rates: Mapping[str, float]

    def batch(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
        """These rows, encoded."""
        return Batch(self.encoding.encode(self.dataset.inputs[rows]), self.targets.encode(self.answers[rows]), rows)


def assemble(config: RunConfig) -> Parts:
    """Build everything a run needs.

    Raises
    ------
    InputError
        When a name is unknown, the rule cannot train the substrate, an option does not fit, or no rows are left.
    """
    dataset = dataset_of(config.data.name)
    parts = split(
        dataset,
        split_seed=config.data.split_seed,
        validation_fraction=config.data.validation_fraction,
        train_limit=config.data.train_limit,
        test_limit=config.data.test_limit,
    )
    fitted = parts.train if config.training.fit_on == "train" else parts.train_and_validation
    evaluated = parts.validation if config.training.evaluate_on == "validation" else parts.test
    if not len(evaluated):
        raise InputError(
            f"data.validation_fraction is {config.data.validation_fraction:g}, which leaves no validation rows; expected more"
        )
    entry = find_rule(config.rule.name)
    updates = config.training.epochs * -(-len(fitted) // config.training.batch_size)
    hyper = with_updates(entry, hyperparameters(entry, config.rule.hyper), updates)
    substrates = build_substrates(config, entry, (dataset.features, *config.substrate.hidden, dataset.outputs), dataset)
    ledger = Ledger()
    for role, substrate in substrates.items():
        substrate.attach(ledger, role)
    chip = learner = substrates[entry.learner]
    for port in ("input", "output"):
        if port not in chip.ports:
            raise InputError(f"substrate {config.substrate.name!r} has no {port} port; expected one that data go through")
    encoding = fit_encoding(dataset.inputs[fitted], chip.ports["input"], scheme=scheme_for(dataset.kind))
    if config.training.placement == "twin-deployed":
        with ledger.phase("initialise"):
            calibrate(chip, config, encoding.encode(dataset.inputs[fitted[:CALIBRATION_ROWS]]), fitted[:CALIBRATION_ROWS])
        with ledger.phase("train"), ledger.phase("twin"):  # a twin that is fitted to the device has its price
            learner = TwinSubstrate.of(chip)
        learner.attach(ledger, "host")
    deployed = build_rule(entry, substrates, hyper)
    rule = deployed if learner is chip else build_rule(entry, {**substrates, entry.learner: learner}, hyper)
    answers = np.array(dataset.answers)
    if config.training.labels == "shuffled":
        order = Key(config.seed).at("shuffled labels").generator().permutation(len(fitted))
        answers[fitted] = answers[fitted[order]]
    return Parts(
        config=config,
        dataset=dataset,
        split=parts,
        fitted=fitted,
        evaluated=evaluated,
        answers=answers,
        encoding=encoding,
        targets=fit_targets(answers[fitted], chip.ports["output"], classes=dataset.classes),
        ledger=ledger,
        substrates=substrates,
        learner=learner,
        chip=chip,
        entry=entry,
        rule=rule,
        deployed=deployed,
        loss=str(hyper.get("loss", "mse")),
        rates=parameter_rates(config, entry, learner.parameters),
    )


def first_values(config: RunConfig, parameters: Mapping[str, Parameter]) -> dict[str, Array]:
    """What a run begins with."""
    training, key = config.training, Key(config.seed).at("init")
    return dict(initial_values(parameters, key=key, gain=training.gain, scheme=training.initialisation))


def write_values(substrate: Any, values: Mapping[str, Array], key: Key) -> None:
    """Write what can be written; the rest begins with what it holds."""
    writable = {name: Write(one) for name, one in values.items() if "Write" in substrate.parameters[name].accepts}
    if writable:
        substrate.program(writable, key=key)


def calibrate(substrate: Any, config: RunConfig, inputs: Array, rows: Array) -> None:
    """Let a substrate calibrate itself on data, at the values that training begins with; one that does not is left alone."""
    if not callable(getattr(substrate, "calibrate", None)):
        return
    if "Program" in substrate.capabilities:
        key = Key(config.seed).at("program", "initialise")
        write_values(substrate, first_values(config, substrate.parameters), key)
    substrate.calibrate(inputs, rows, Key(config.seed).at("calibrate"))


def build_rule(entry: RuleEntry, substrates: Mapping[str, Any], hyper: Mapping[str, Any]) -> Rule:
    """The rule on these substrates: it is handed a `Measurable` of each, a digital substrate itself.

    A digital machine may read its own memory; of a physical one a rule gets what can be measured and nothing else.

    Raises
    ------
    InputError
        When a hyperparameter does not fit.
    """
    handed = {role: one if isinstance(one, DigitalSubstrate) else Measurable(one) for role, one in substrates.items()}
    return call("rule", entry.name, entry.build, **handed, **hyper)  # type: ignore[no-any-return]


def check_substrate(name: str, substrate: Any) -> None:
    """See that an object is a substrate: has what each of them has, and the calls that its capabilities promise.

    Raises
    ------
    InputError
        Naming what is missing.
    """
    lacking = [one for one in EXPECTED if not hasattr(substrate, one)]
    if not lacking:
        for one in ("capabilities", "traits"):
            if not isinstance(getattr(substrate, one), (frozenset, set)):
                found = type(getattr(substrate, one)).__name__
                raise InputError(f"{one} of substrate {name!r} are a {found}; expected a frozenset of names")
        lacking = [one for one in calls_of(frozenset(substrate.capabilities)) if not callable(getattr(substrate, one, None))]
    if lacking:
        raise InputError(
            f"substrate {name!r} ({type(substrate).__name__}) lacks {', '.join(lacking)}; "
            "expected what inmaterio.simulators.capabilities lists for a substrate and for each of its capabilities"
        )


def time_options(name: str, options: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Options that a substrate with time in it takes from the data: how many steps a row has, and how long one lasts.

    A substrate is one with time when it has the options ``steps`` and ``seconds_per_step``; any other sees a row as
    it lies, steps times channels numbers. Rows without time are one step of amplitudes, unless the user wants them read as more.

    Parameters
    ----------
    name : str
        Of the substrate.
    options : mapping
        Those that the user set, which stand.
    dataset : Dataset

    Returns
    -------
    dict
        What is to be set beside them.

    Raises
    ------
    InputError
        When the user's steps are not the data's.
    """
    if not {"steps", "seconds_per_step"} <= inspect.signature(find_substrate(name).taker).parameters.keys():
        return {}
    if dataset.steps and options.get("steps", dataset.steps) != dataset.steps:
        raise InputError(
            f"substrate {name!r} is set to steps = {options['steps']}, and rows of data set {dataset.name!r} have "
            f"{dataset.steps} steps; expected the same, or no steps of its own"
        )
    given = {"steps": dataset.steps, "seconds_per_step": dataset.seconds_per_step} if dataset.steps else {"steps": 1}
    return {option: value for option, value in given.items() if option not in options}


def build_substrates(
    config: RunConfig, entry: RuleEntry, widths: tuple[int, ...], dataset: Dataset, *, chips: str = TRAINING_CHIPS
) -> dict[str, Any]:
    """The substrate of every role of a rule.

    `config.partners` name those of all roles but one; `config.substrate` fills the one left, with a chip of the stream `chips`.
    `dataset` gives those with time in them their steps.

    Raises
    ------
    InputError
        When roles do not add up, a substrate lacks what its role requires, or its steps are not the data's.
    """
    for role in config.partners:
        check_name("role in partners:", role, entry.requires)
    left = [role for role in entry.requires if role not in config.partners]
    if len(left) != 1:
        raise InputError(f"rule {entry.name!r} has roles {', '.join(entry.requires)}; expected partners for all but one of them")
    chosen: dict[str, SubstrateConfig] = {role: config.partners.get(role, config.substrate) for role in entry.requires}
    built = {}
    for role, wanted in chosen.items():
        wanted = replace(wanted, hidden=config.substrate.hidden) if role in config.partners and not wanted.hidden else wanted
        inner = (widths[0], *wanted.hidden, widths[-1])
        options = {**wanted.options, **time_options(wanted.name, wanted.options, dataset)}
        stream = TRAINING_CHIPS if role in config.partners else chips
        built[role] = find_substrate(wanted.name).build(inner, chip=Key(wanted.chip, (stream,)), **options)
        check_substrate(wanted.name, built[role])
        place = "" if len(chosen) == 1 else f" as {role}"
        if role == entry.learner and config.training.placement == "digital-readout":
            built[role] = DigitalReadout(built[role])
            place += " behind a digital readout"
        lack = entry.requires[role].missing(built[role])
        if lack:
            raise InputError(f"rule {entry.name!r} cannot train substrate {wanted.name!r}{place}: {wanted.name} {lack}")
    return built


def hyperparameters(entry: RuleEntry, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's defaults with those of the configuration in their place; rates are the optimiser's.

    Raises
    ------
    InputError
        When the rule has no hyperparameter of that name.
    """
    parameters = inspect.signature(entry.build).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        known = [name for name in parameters if name not in entry.requires]
        for name in chosen:
            check_name(f"hyperparameter of {entry.name}:", name, known)
    return {**{name: value for name, value in entry.defaults.items() if name != "rates"}, **chosen}


def with_updates(entry: RuleEntry, hyper: Mapping[str, Any], updates: int) -> dict[str, Any]:
    """Hyperparameters, with the number of updates of the run where `build` takes ``total_updates`` and the user gave none."""
    found = dict(hyper)
    if "total_updates" in inspect.signature(entry.build).parameters and not found.get("total_updates"):
        found["total_updates"] = updates
    return found


def parameter_rates(config: RunConfig, entry: RuleEntry, parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Learning rate of each parameter that is trained.

    The rule's own rates, when they are one per layer for another number of layers, give their first to every hidden layer
    and their last to the readout.

    Raises
    ------
    InputError
        When the configuration's rates are of another number than the layers, or there are none.
    """
    if not parameters:
        raise InputError(f"rule {entry.name!r} has nothing to train: the substrate has no parameters")
    layers = max(parameter.layer for parameter in parameters.values())
    rates = entry.defaults.get("rates") if config.training.rates is None else config.training.rates
    if rates is None:
        raise InputError(f"rule {entry.name!r} has no rates of its own; expected training.rates")
    if isinstance(rates, (int, float)):
        rates = (rates,) * layers
    elif len(rates) != layers and config.training.rates is None:
        rates = (rates[0],) * (layers - 1) + (rates[-1],)
    if len(rates) != layers:
        raise InputError(f"training.rates has {len(rates)} numbers; expected one, or {layers}: one per layer")
    trained = {name: one for name, one in parameters.items() if config.training.trained == "all" or one.readout}
    if not trained:
        raise InputError("training.trained is 'readout', but the substrate has no parameter that drives the output layer alone")
    return {
        name: float(rates[one.layer - 1]) * config.training.rate_factor * group_of(name, entry.groups).rate_factor
        for name, one in trained.items()
    }
