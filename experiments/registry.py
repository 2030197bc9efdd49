"""Which rules and substrates there are, and which pairs are legal.

Found by looking: every module of `inmaterio.learning_rules` that has `REQUIRES` and `build` is a rule, every module of
`inmaterio.simulators` that has `PRESETS` and `build` offers the substrates in `PRESETS`. Others come from the entry points
`inmaterio.rules` (each names a module that is a rule; the entry's name is the rule's) and `inmaterio.substrates` (each
names a module with `PRESETS`), or from a file:

- ``FILE.py:NAME`` for a rule: the file is the rule, NAME is what tables call it;
- ``FILE.py:NAME`` for a substrate: NAME is one of the file's `PRESETS`.
"""

import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError, check_name
from inmaterio.learning_rules.contract import Rule
from inmaterio.simulators.capabilities import Requirement, Substrate


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
    """

    name: str
    requires: Mapping[str, Requirement]
    defaults: Mapping[str, Any]
    programs: bool
    build: Callable[..., Rule]

    @property
    def learner(self) -> str:
        """The role whose parameters are trained."""
        return "substrate" if "substrate" in self.requires else "model" if "model" in self.requires else next(iter(self.requires))


@dataclass(frozen=True, slots=True, eq=False)
class SubstrateEntry:
    """A substrate that can be built: a module's `build` with the options of one preset."""

    name: str
    options: Mapping[str, Any]
    build_module: Callable[..., Any]

    def build(self, widths: Sequence[int], *, chip: Key, **options: Any) -> Any:
        """The substrate of these widths, input first, with the static errors of this chip.

        Raises
        ------
        InputError
            When an option is unknown or out of its range.
        """
        return call("substrate", self.name, self.build_module, tuple(widths), chip=chip, **{**self.options, **options})


def call(kind: str, name: str, build: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a `build`; an option that it does not take is bad input, not a fault."""
    import inspect

    try:
        inspect.signature(build).bind(*arguments, **options)
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: {error}") from None
    return build(*arguments, **options)


def _modules(package: str) -> list[ModuleType]:
    found = importlib.import_module(package)
    return [
        importlib.import_module(f"{package}.{one.name}")
        for one in sorted(pkgutil.iter_modules(found.__path__), key=lambda one: one.name)
    ]


def _rule_entry(name: str, module: Any, origin: str) -> RuleEntry:
    for attribute in ("REQUIRES", "build"):
        if not hasattr(module, attribute):
            raise InputError(f"{origin} has no {attribute}; expected a file with REQUIRES, DEFAULTS, PROGRAMS and build")
    return RuleEntry(
        name, module.REQUIRES, getattr(module, "DEFAULTS", {}), bool(getattr(module, "PROGRAMS", False)), module.build
    )


def _substrate_entries(module: Any, origin: str) -> dict[str, SubstrateEntry]:
    for attribute in ("PRESETS", "build"):
        if not hasattr(module, attribute):
            raise InputError(f"{origin} has no {attribute}; expected a file with PRESETS and build")
    return {name: SubstrateEntry(name, options, module.build) for name, options in module.PRESETS.items()}


@functools.cache
def rules() -> Mapping[str, RuleEntry]:
    """Every rule that is installed, by name."""
    found = {}
    for module in _modules("inmaterio.learning_rules"):
        if hasattr(module, "REQUIRES") and hasattr(module, "build"):
            name = module.__name__.rpartition(".")[2].replace("_", "-")
            found[name] = _rule_entry(name, module, module.__name__)
    for point in entry_points(group="inmaterio.rules"):
        found[point.name] = _rule_entry(point.name, point.load(), f"entry point {point.name!r}")
    return found


@functools.cache
def substrates() -> Mapping[str, SubstrateEntry]:
    """Every substrate that is installed, by name."""
    found: dict[str, SubstrateEntry] = {}
    for module in _modules("inmaterio.simulators"):
        if hasattr(module, "PRESETS") and hasattr(module, "build"):
            found.update(_substrate_entries(module, module.__name__))
    for point in entry_points(group="inmaterio.substrates"):
        found.update(_substrate_entries(point.load(), f"entry point {point.name!r}"))
    return found


@functools.cache
def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file")
    name = f"inmaterio_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses with slots look their module up by name.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _split(name: str) -> tuple[Path, str] | None:
    file, colon, inner = name.rpartition(":")
    return (Path(file).resolve(), inner) if colon and file.endswith(".py") else None


def find_rule(name: str) -> RuleEntry:
    """The rule of this name, or in this ``FILE.py:NAME``.

    Raises
    ------
    InputError
        With the nearest names, or saying what the file lacks.
    """
    place = _split(name)
    if place is not None:
        return _rule_entry(place[1], _load_file(place[0]), str(place[0]))
    return rules()[check_name("rule", name, rules())]


def find_substrate(name: str) -> SubstrateEntry:
    """The substrate of this name, or in this ``FILE.py:NAME``.

    Raises
    ------
    InputError
        With the nearest names, or saying what the file lacks.
    """
    place = _split(name)
    if place is not None:
        offered = _substrate_entries(_load_file(place[0]), str(place[0]))
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


@functools.cache
def sample(name: str) -> Any:
    """A small substrate of this kind, for asking what it can do."""
    return find_substrate(name).build((2, 2, 2), chip=Key(0, ("chip",)))


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
