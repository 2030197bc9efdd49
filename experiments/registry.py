"""Which rules and substrates there are, and which pairs are legal.

Found by looking: every module of `inmaterio.learning_rules` that has `REQUIRES` and `build` is a rule, every module of
`inmaterio.simulators` that has `PRESETS` and `build` offers the substrates in `PRESETS`. Others come from the entry points
`inmaterio.rules` (each names a module that is a rule; the entry's name is the rule's) and `inmaterio.substrates` (each
names a module with `PRESETS`), or from a file:

- ``FILE.py:NAME`` for a rule: the file is the rule, NAME is whatever tables shall call it;
- ``FILE.py:NAME`` for a substrate: NAME is one of the file's `PRESETS`.

A module of substrates that have no hidden layers says `LAYERED = False`: then widths are inputs and outputs alone. A module
of substrates whose `build` takes ``**options`` may say what they are: `OPTIONS` is a function or dataclass with
the same names, whose annotations are the types that options are checked against.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.memory import check_memory, show_widths
from inmaterio.experiments.own_files import guarded, load_module, own_file
from inmaterio.experiments.text_values import parse_value
from inmaterio.learning_rules.contract import Rule
from inmaterio.learning_rules.schedules import Group
from inmaterio.simulators.capabilities import Requirement, Substrate
from inmaterio.simulators.option_types import check_option_types


@dataclass(frozen=True, slots=True, eq=False)
class RuleEntry:
    """A rule that can be built.

    Attributes
    ----------
    name : str
    requires : mapping of str to Requirement
        What it needs of the substrate in each role.
    defaults : mapping
        Hyperparameters and base learning rates.
    programs : bool
        Whether it writes by itself.
    build : callable
        ``build(**roles, **hyper) -> Rule``.
    groups : mapping of str to Group
        Parameters that are trained otherwise than the rest, by kind: the module's ``GROUPS``, where it has one.
    """

    name: str
    requires: Mapping[str, Requirement]
    defaults: Mapping[str, Any]
    programs: bool
    build: Callable[..., Rule]
    groups: Mapping[str, Group] = field(default_factory=dict)

    @property
    def learner(self) -> str:
        """The role whose parameters are trained."""
        return "substrate" if "substrate" in self.requires else "model" if "model" in self.requires else next(iter(self.requires))

    def check(self, hyper: Mapping[str, Any], path: str = "rule.hyper") -> None:
        """Make sure that hyperparameters are known and of their types.

        Raises
        ------
        InputError
            Naming `path` and the hyperparameter.
        """
        kind = f"hyperparameter of {self.name}:"
        check_option_types(self.build, hyper, path, kind=kind, reserved=[*self.requires, "rates"], defaults=self.defaults)


@dataclass(frozen=True, slots=True, eq=False)
class SubstrateEntry:
    """A substrate that can be built: a module's `build` with the options of one preset.

    Attributes
    ----------
    name : str
    options : mapping
        Those of the preset.
    build_module : callable
        ``build(widths, *, chip, **options)`` of the module.
    taker : callable
        Whose annotations say what options there are and of what types: the module's `OPTIONS`, or `build` itself.
    layered : bool
        Whether it may have hidden layers.
    """

    name: str
    options: Mapping[str, Any]
    build_module: Callable[..., Any]
    taker: Callable[..., Any]
    layered: bool = True

    def check(self, options: Mapping[str, Any], path: str = "substrate.options") -> None:
        """Make sure that options are known and of their types.

        Raises
        ------
        InputError
            Naming `path` and the option.
        """
        check_option_types(self.taker, options, path, kind=f"option of {self.name}:", reserved=("widths", "chip"))

    def build(self, widths: Sequence[int], /, *, chip: Key, **options: Any) -> Any:
        """The substrate of these widths, input first, with the static errors of this chip.

        Raises
        ------
        InputError
            When an option is unknown, of another type or out of its range, or the widths do not fit into memory.
        """
        self.check(options)
        together = {**self.options, **options}
        # of a row of a substrate with time in it, one step is coupled to the next layer
        steps = int(together.get("steps", 1)) if {"steps", "seconds_per_step"} <= together.keys() else 1
        check_memory((max(widths[0] // max(steps, 1), 1), *widths[1:]))
        try:
            return call("substrate", self.name, self.build_module, tuple(widths), chip=chip, **together)
        except MemoryError:
            raise InputError(f"substrate {self.name!r}: not enough memory for {show_widths(widths)}") from None


def call(kind: str, name: str, build: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
    """Call a `build`; an option that it does not take is bad input, not a fault."""
    try:
        inspect.signature(build).bind(*arguments, **options)
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: {error}") from None
    return build(*arguments, **options)


def check_settings(config: RunConfig) -> None:
    """Make sure that every option and hyperparameter of a configuration is known and of its type.

    Raises
    ------
    InputError
        Naming the path of the key.
    """
    find_rule(config.rule.name).check(config.rule.hyper)
    find_substrate(config.substrate.name).check(config.substrate.options)
    for role, partner in config.partners.items():
        find_substrate(partner.name).check(partner.options, f"partners.{role}.options")


def _modules(package: str) -> list[ModuleType]:
    found = importlib.import_module(package)
    return [
        importlib.import_module(f"{package}.{one.name}")
        for one in sorted(pkgutil.iter_modules(found.__path__), key=lambda one: one.name)
    ]


def _rule_entry(name: str, module: Any, origin: str, *, own: bool = False) -> RuleEntry:
    _check_module(module, origin, "REQUIRES", "a file with REQUIRES, DEFAULTS, PROGRAMS and build")
    build = guarded(module.build, origin, _wrong_rule) if own else module.build
    defaults, programs = getattr(module, "DEFAULTS", {}), bool(getattr(module, "PROGRAMS", False))
    return RuleEntry(name, module.REQUIRES, defaults, programs, build, getattr(module, "GROUPS", {}))


def _substrate_entries(module: Any, origin: str, *, own: bool = False) -> dict[str, SubstrateEntry]:
    _check_module(module, origin, "PRESETS", "a file with PRESETS and build")
    build = guarded(module.build, origin, _wrong_substrate) if own else module.build
    taker = getattr(module, "OPTIONS", module.build)
    layered = bool(getattr(module, "LAYERED", True))
    return {name: SubstrateEntry(name, options, build, taker, layered) for name, options in module.PRESETS.items()}


def _check_module(module: Any, origin: str, table: str, expected: str) -> None:
    for attribute in (table, "build"):
        if not hasattr(module, attribute):
            raise InputError(f"{origin} has no {attribute}; expected {expected}")
    if not isinstance(getattr(module, table), Mapping):
        raise InputError(f"{table} of {origin} is {type(getattr(module, table)).__name__}; expected a mapping")


def _wrong_rule(found: Any) -> str:
    return "" if isinstance(found, Rule) else "expected a Rule"


def _wrong_substrate(found: Any) -> str:
    lacking = [name for name in ("parameters", "ports", "capabilities", "traits") if not hasattr(found, name)]
    return f"which has no {', '.join(lacking)}; expected a substrate" if lacking else ""


def _load_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise InputError(f"entry point {point.name!r} cannot be imported: {type(error).__name__}: {error}") from error


@functools.cache
def rules() -> Mapping[str, RuleEntry]:
    """Every rule that is installed, by name."""
    found = {}
    for module in _modules("inmaterio.learning_rules"):
        if hasattr(module, "REQUIRES") and hasattr(module, "build"):
            name = module.__name__.rpartition(".")[2].replace("_", "-")
            found[name] = _rule_entry(name, module, module.__name__)
    for point in entry_points(group="inmaterio.rules"):
        found[point.name] = _rule_entry(point.name, _load_point(point), f"entry point {point.name!r}", own=True)
    return found


@functools.cache
def substrates() -> Mapping[str, SubstrateEntry]:
    """Every substrate that is installed, by name."""
    found: dict[str, SubstrateEntry] = {}
    for module in _modules("inmaterio.simulators"):
        if hasattr(module, "PRESETS") and hasattr(module, "build"):
            found.update(_substrate_entries(module, module.__name__))
    for point in entry_points(group="inmaterio.substrates"):
        found.update(_substrate_entries(_load_point(point), f"entry point {point.name!r}", own=True))
    return found


@functools.lru_cache(maxsize=64)
def _offered(module: ModuleType, origin: str) -> dict[str, SubstrateEntry]:
    return _substrate_entries(module, origin, own=True)


def find_rule(name: str) -> RuleEntry:
    """The rule of this name, or in this ``FILE.py:NAME``.

    Behind a ``?`` may stand hyperparameters, joined by ``&``, values as in TOML without quotes around words:
    ``holomorphic-equilibrium-propagation?points=6&form=states``. That makes a rule with other defaults, called by the whole
    text, so that one comparison can hold several settings of a rule.

    Raises
    ------
    InputError
        With the nearest names, saying what the file lacks, or what is wrong with a hyperparameter.
    """
    plain, mark, text = name.partition("?")
    place = own_file(plain)
    if place is not None:
        entry = _rule_entry(place[1], load_module(place[0]), str(place[0].resolve()), own=True)
    else:
        entry = rules()[check_name("rule", plain, rules())]
    return _variant(entry, name, text) if mark else entry


def _variant(entry: RuleEntry, name: str, text: str) -> RuleEntry:
    """The rule with the hyperparameters of a text as its defaults."""
    own: dict[str, Any] = {}
    for part in text.split("&"):
        key, equals, value = part.partition("=")
        if not (key and equals and value) or key in own:
            raise InputError(f"rule {name!r}: {part!r} cannot be read; expected NAME=VALUE, each name once, joined by &")
        try:
            own[key] = parse_value(value)
        except InputError as error:
            raise InputError(f"rule {name!r}: {key}: {error}") from None
    entry.check(own, f"rule {name!r}")
    return replace(entry, name=name, defaults={**entry.defaults, **own}, build=functools.partial(entry.build, **own))


def find_substrate(name: str) -> SubstrateEntry:
    """The substrate of this name, or in this ``FILE.py:NAME``.

    Raises
    ------
    InputError
        With the nearest names, or saying what the file lacks.
    """
    place = own_file(name)
    if place is not None:
        offered = _offered(load_module(place[0]), str(place[0].resolve()))
        return offered[check_name(f"substrate in {place[0].name}:", place[1], offered)]
    return substrates()[check_name("substrate", name, substrates())]


@dataclass(frozen=True, slots=True)
class Pair:
    """Whether a rule can train a substrate.

    Attributes
    ----------
    role : str
        Which role of the rule the substrate fills; empty when none.
    reason : str
        What is missing when the pair is not legal, per role.
    """

    rule: str
    substrate: str
    legal: bool
    reason: str
    role: str


def judge(rule: RuleEntry, substrate: Substrate, name: str) -> Pair:
    """Whether this substrate can fill a role of this rule."""
    missing = {role: requirement.missing(substrate) for role, requirement in rule.requires.items()}
    for role, lack in missing.items():
        if not lack:
            return Pair(rule.name, name, True, "" if len(missing) == 1 else f"as {role}", role)
    reasons = [f"{name} {lack}" if len(missing) == 1 else f"as {role}, {name} {lack}" for role, lack in missing.items()]
    return Pair(rule.name, name, False, "; ".join(reasons), "")


def sample(name: str) -> Any:
    """A small substrate of this kind, for asking what it can do."""
    return _sample(find_substrate(name))


@functools.lru_cache(maxsize=64)
def _sample(entry: SubstrateEntry) -> Any:
    return entry.build((2, 2, 2) if entry.layered else (2, 2), chip=Key(0, ("chip",)))


def check_pair(rule: str, substrate: str) -> Pair:
    """The pair when it is legal.

    Raises
    ------
    InputError
        Saying which capability or trait is missing.
    """
    pair = judge(find_rule(rule), sample(substrate), substrate)
    if not pair.legal:
        raise InputError(f"rule {rule!r} cannot train substrate {substrate!r}: {pair.reason}")
    return pair


def pairs(rule_names: Sequence[str] | None = None, substrate_names: Sequence[str] | None = None) -> list[Pair]:
    """Every rule against every substrate, by name."""
    return [
        judge(find_rule(rule), sample(substrate), substrate)
        for rule in (rules() if rule_names is None else rule_names)
        for substrate in (substrates() if substrate_names is None else substrate_names)
    ]
