"""What a comparison runs: the rules that were asked for, and the controls that always stand beside them.

- ``bp-feedforward``: backpropagation in a digital network of the same widths; once per comparison.
- ``implicit-differentiation``: the exact gradient of the same network's fixed point; per substrate that allows it.
- ``twin-deployed``: backpropagation in the digital twin, written onto the chip at the end; per substrate with a twin.
- ``readout-only``: logistic (for values: linear) regression in the host on the measured states of the last hidden layer,
  everything in the substrate kept at its first values; per substrate whose hidden states can be read, or else its outputs.
- ``RULE without physics``, ``RULE with linear physics``: every rule once more where the physics before its maps is left out, or
  replaced by the best linear map of the same size; per substrate that has ablations.
- ``shuffled-labels``: the first rule at its own rate, labels of the training rows permuted: must be at chance; per substrate.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inmaterio.devices.validation import InputError, check_name
from inmaterio.experiments.assembly import build_rule, build_substrates, dataset_of, hyperparameters, with_updates
from inmaterio.experiments.configuration import RuleConfig, RunConfig, SubstrateConfig
from inmaterio.experiments.registry import check_settings, find_rule, find_substrate, judge, sample

BASELINE = ("backpropagation", "digital-feedforward")
"""Rule and substrate of ``bp-feedforward``."""

BP_FEEDFORWARD = "bp-feedforward"
IMPLICIT = "implicit-differentiation"
TWIN_DEPLOYED = "twin-deployed"
READOUT_ONLY = "readout-only"
SHUFFLED_LABELS = "shuffled-labels"

DELTA_RULE = "delta-rule"

WITHOUT_PHYSICS, LINEAR_PHYSICS = "without physics", "with linear physics"

ABLATIONS = {WITHOUT_PHYSICS: "no-physics", LINEAR_PHYSICS: "linear-physics"}
"""How a row is called after its rule, and the option ``ablation`` of a substrate that it stands for."""

ADAM_RATE = 0.005
"""First rate of backpropagation in a digital network, and in a twin, where the optimiser is Adam."""

READOUT_OPTIMISER, READOUT_RATE = "adam", 0.02
"""How ``readout-only`` learns: as well as a digital host can, and from a rate at which its grid of the same size as every
other lies around its own optimum, or the control would be weak."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One row of a comparison before it has run.

    Attributes
    ----------
    rule : str
        As tables call it: the rule's or the control's name.
    substrate : str
    control : bool
    base : RunConfig
        Everything but seed, chip, split, rate and the rows it trains on.
    rate_from : int, optional
        Place of the plan whose rate it takes; it has a grid of its own when None.
    """

    rule: str
    substrate: str
    control: bool
    base: RunConfig
    rate_from: int | None = None

    @property
    def has_chips(self) -> bool:
        """Whether one chip differs from another: digital ones do not."""
        return self.substrate != BASELINE[1]


def plan_rows(
    base: RunConfig,
    substrates: Sequence[str],
    rules: Sequence[str],
    loss: str | None = None,
    *,
    hyper: Mapping[str, Mapping[str, Any]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[Plan], list[str]]:
    """Every row of a comparison.

    Parameters
    ----------
    base : RunConfig
        Data, widths, training.
    substrates, rules : sequence of str
        Names as `inmaterio.experiments.registry` takes them.
    loss : str, optional
        In place of each rule's own, where a rule follows one that can be chosen.
    hyper, options : mapping of str to mapping, optional
        Hyperparameters by rule, and options by substrate, in place of their own.

    Returns
    -------
    list of Plan, list of str
        Rows, and what was left out and why.

    Raises
    ------
    InputError
        When a name is unknown, or a rule or substrate that was asked for is left without a legal partner.
    """
    hyper, options = hyper or {}, options or {}
    for kind, given, known in (("rule", hyper, rules), ("substrate", options, substrates)):
        for name in given:
            check_name(f"{kind} that is compared:", name, known)
    notes: list[str] = []
    legal: dict[str, list[str]] = {substrate: [] for substrate in substrates}
    for rule in rules:
        reasons = []
        for substrate in substrates:
            pair = judge(find_rule(rule), sample(substrate), substrate)
            if pair.legal:
                legal[substrate].append(rule)
            else:
                reasons.append(f"rule {rule!r} cannot train substrate {substrate!r}: {pair.reason}")
        if len(reasons) == len(substrates):
            raise InputError("; ".join(reasons))
        notes += reasons
    for substrate, partners in legal.items():
        if not partners:
            reasons = [note for note in notes if repr(substrate) in note]
            raise InputError(f"no rule that was asked for can train {substrate!r}: {'; '.join(reasons)}")

    if loss is not None:
        own = [rule for rule in rules if "loss" not in find_rule(rule).defaults]
        if len(own) == len(rules):
            raise InputError(f"rule {own[0]!r} has no loss to choose; leave --loss out")
        notes += [f"loss {loss} is not for {rule}, which has one of its own" for rule in own]

    def hidden_of(substrate: str) -> tuple[int, ...]:
        return base.substrate.hidden if find_substrate(substrate).layered else ()

    # a control follows the loss of the rules that it stands beside, where they have one in common
    followed = {hyper.get(rule, {}).get("loss", find_rule(rule).defaults.get("loss")) for rule in rules} - {None}
    shared = loss if loss is not None else next(iter(followed)) if len(followed) == 1 else None

    def configured(rule: str, substrate: str, **training: Any) -> RunConfig:
        chosen = loss if rule in rules else shared
        return replace(
            base,
            substrate=SubstrateConfig(substrate, hidden_of(substrate), dict(options.get(substrate, {}))),
            rule=RuleConfig(rule, {**_hyper(rule, chosen), **hyper.get(rule, {})}),
            training=replace(base.training, **training),
        )

    by_backpropagation = base.training.rates or (ADAM_RATE if base.training.optimiser in ("adam", "adamw") else None)

    # its own loss: of a linear map in the host, whatever the rules beside it follow
    regression = "cross_entropy" if dataset_of(base.data.name).classes else "mse"
    plans = [
        Plan(
            rule, substrate, False, configured(rule, substrate, **({"rates": by_backpropagation} if rule == BASELINE[0] else {}))
        )
        for substrate in substrates
        for rule in legal[substrate]
    ]
    plans.append(
        Plan(BP_FEEDFORWARD, BASELINE[1], True, configured(*BASELINE, write_mode="master copy", rates=by_backpropagation))
    )
    for substrate in substrates:
        first = legal[substrate][0]
        if IMPLICIT not in legal[substrate]:
            pair = judge(find_rule(IMPLICIT), sample(substrate), substrate)
            if pair.legal:
                plans.append(Plan(IMPLICIT, substrate, True, configured(IMPLICIT, substrate)))
            else:
                notes.append(f"control {IMPLICIT} left out on {substrate}: {pair.reason}")
        if substrate == BASELINE[1]:
            notes.append(f"control {TWIN_DEPLOYED} left out on {substrate}: it is {BP_FEEDFORWARD}")
        else:
            pair = judge(find_rule(BASELINE[0]), sample(substrate), substrate)
            if pair.legal:
                training = {
                    "placement": "twin-deployed",
                    "write_mode": "master copy",
                    "rates": by_backpropagation or _twin_rates(substrate),
                }
                plans.append(Plan(TWIN_DEPLOYED, substrate, True, configured(BASELINE[0], substrate, **training)))
            else:
                notes.append(f"control {TWIN_DEPLOYED} left out on {substrate}: {pair.reason}")
        offers = sample(substrate).capabilities
        if not hidden_of(substrate) and not offers & {"ReadLayers"} and "ReadStates" in offers:
            notes.append(f"control {READOUT_ONLY} left out on {substrate}: there is no hidden layer")
        elif not offers & {"ReadStates", "Forward"}:
            notes.append(f"control {READOUT_ONLY} left out on {substrate}: {substrate} lacks capability ReadStates and Forward")
        else:
            control = configured(
                DELTA_RULE,
                substrate,
                placement="digital-readout",
                trained="readout",
                write_mode="master copy",
                optimiser=READOUT_OPTIMISER,
                momentum=0.0,
                weight_decay=0.0,
                schedule="cosine",
                rates=READOUT_RATE,
            )
            plans.append(Plan(READOUT_ONLY, substrate, True, replace(control, rule=RuleConfig(DELTA_RULE, {"loss": regression}))))
        if _has_ablations(substrate):
            for rule in legal[substrate]:
                for words, ablation in ABLATIONS.items():
                    plain = configured(rule, substrate)
                    changed = replace(plain.substrate, options={**plain.substrate.options, "ablation": ablation})
                    plans.append(Plan(f"{rule} {words}", substrate, True, replace(plain, substrate=changed)))
        place = next(i for i, plan in enumerate(plans) if (plan.rule, plan.substrate, plan.control) == (first, substrate, False))
        plans.append(Plan(SHUFFLED_LABELS, substrate, True, configured(first, substrate, labels="shuffled"), rate_from=place))
    return plans, notes


def check_plans(plans: Sequence[Plan]) -> None:
    """Build what was asked for once, so that a value that cannot be is refused before anything is looked up or made.

    Controls are of the same substrates, with hyperparameters of their own.

    Raises
    ------
    InputError
        When an option or a hyperparameter is unknown, of another type or out of its range, or does not fit the data.
    """
    built: tuple[SubstrateConfig | None, dict[str, Any]] = (None, {})
    for plan in plans:
        config, entry = plan.base, find_rule(plan.base.rule.name)
        if plan.control:
            continue
        check_settings(config)
        dataset = dataset_of(config.data.name)
        if built[0] != config.substrate or built[1].keys() != entry.requires.keys():
            widths = (dataset.features, *config.substrate.hidden, dataset.outputs)
            built = (config.substrate, build_substrates(config, entry, widths, dataset))
        hyper = hyperparameters(entry, config.rule.hyper)
        build_rule(entry, built[1], with_updates(entry, hyper, config.training.epochs))  # at least so many updates


def _has_ablations(substrate: str) -> bool:
    entry = find_substrate(substrate)
    return "ablation" in inspect.signature(entry.taker).parameters


def _twin_rates(substrate: str) -> float | tuple[float, ...] | None:
    """Rates of backpropagation in a twin: those of the other rule that follows the same exact gradient, where it is legal."""
    other = find_rule(IMPLICIT)
    rates = other.defaults["rates"] if judge(other, sample(substrate), substrate).legal else None
    return tuple(rates) if isinstance(rates, (list, tuple)) else rates


def _hyper(rule: str, loss: str | None) -> dict[str, Any]:
    if loss is None:
        return {}
    return {"loss": loss} if "loss" in find_rule(rule).defaults else {}


def ablation_of(name: str) -> tuple[str, str] | None:
    """The rule and the words of `ABLATIONS` that the name of a control is made of; None for any other."""
    return next(((name.removesuffix(f" {words}"), words) for words in ABLATIONS if name.endswith(f" {words}")), None)


def check_rules(rules: Sequence[str]) -> None:
    """Refuse a rule or substrate that is named twice."""
    for name in rules:
        if list(rules).count(name) > 1:
            raise InputError(f"{name!r} is named twice; expected each once")
