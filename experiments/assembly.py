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
from inmaterio.experiments.encodings import InputEncoding, TargetEncoding, fit_encoding, fit_targets
from inmaterio.experiments.registry import RuleEntry, call, find_rule, find_substrate
from inmaterio.learning_rules.contract import Batch, Rule
from inmaterio.simulators.capabilities import Array, Parameter
from inmaterio.simulators.digital import TwinSubstrate


@functools.lru_cache(maxsize=2)
def _dataset(name: str) -> Dataset:
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
        By role of the rule.
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
    dataset = _dataset(config.data.name)
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
    substrates = build_substrates(config, entry, (dataset.features, *config.substrate.hidden, dataset.outputs))
    ledger = Ledger()
    for role, substrate in substrates.items():
        substrate.attach(ledger, role)
    chip = learner = substrates[entry.learner]
    if config.training.placement == "twin-deployed":
        learner = TwinSubstrate.of(chip)
        learner.attach(ledger, "host")
    hyper = hyperparameters(entry, config.rule.hyper)
    deployed = call("rule", entry.name, entry.build, **substrates, **hyper)
    rule = (
        deployed if learner is chip else call("rule", entry.name, entry.build, **{**substrates, entry.learner: learner}, **hyper)
    )
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
        encoding=fit_encoding(dataset.inputs[fitted], chip.ports["input"]),
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


def build_substrates(config: RunConfig, entry: RuleEntry, widths: tuple[int, ...]) -> dict[str, Any]:
    """The substrate of every role of a rule.

    `config.partners` name those of all roles but one; `config.substrate` fills the one left.

    Raises
    ------
    InputError
        When roles do not add up, or a substrate lacks what its role requires.
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
        built[role] = find_substrate(wanted.name).build(inner, chip=Key(wanted.chip, ("chip",)), **wanted.options)
        lack = entry.requires[role].missing(built[role])
        if lack:
            place = "" if len(chosen) == 1 else f" as {role}"
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


def parameter_rates(config: RunConfig, entry: RuleEntry, parameters: Mapping[str, Parameter]) -> dict[str, float]:
    """Learning rate of each parameter that is trained.

    The rule's own rates, when they are one per layer for another number of layers, give their first to every hidden layer
    and their last to the readout.

    Raises
    ------
    InputError
        When the configuration's rates are of another number than the layers, or there are none.
    """
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
    return {name: float(rates[one.layer - 1]) * config.training.rate_factor for name, one in trained.items()}
