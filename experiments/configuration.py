"""What a run is asked to do: one frozen record, read from and written to TOML.

Every key has a default, so an empty file is a complete configuration. `to_toml` writes every key that has a value,
so that a run directory can be run again.
"""

import dataclasses
import functools
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.experiments.own_files import placed
from inmaterio.experiments.toml_writer import write_toml
from inmaterio.learning_rules.initialisation import SCHEMES
from inmaterio.learning_rules.optimisers import ARITHMETIC
from inmaterio.learning_rules.schedules import SCHEDULES

if TYPE_CHECKING:
    from pydantic import TypeAdapter

STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
"""How a file is checked against these records: a key that is not there and a type that does not fit are errors."""

WRITE_MODES = ("master copy", "in place")
TRAINED = ("all", "readout")
LABELS = ("true", "shuffled")
FIT_ON = ("train", "train+validation")
EVALUATE_ON = ("validation", "test")
PLACEMENTS = ("chip", "twin-deployed", "digital-readout")
DISTURBANCES = ("none", "knock", "drift")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which data, and how they are split.

    Attributes
    ----------
    name : str
        A data set's name; a folder of IDX files is ``idx:FOLDER``, one of WAV recordings ``wav:FOLDER``.
    split_seed : int
        Seed of the permutation that makes the splits; apart from the seed of the run.
    train_limit, test_limit : int, optional
        Use no more than so many rows for training and validation, and for test; all when absent.
    validation_fraction : float
        Part of the rows that are not for test that is held back for choosing settings, in [0, 1); ignored where validation rows
        are published with the data.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = "digits"
    split_seed: int = 0
    train_limit: int | None = None
    test_limit: int | None = None
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_range("data.split_seed", self.split_seed, low=0)
        for key in ("train_limit", "test_limit"):
            if getattr(self, key) is not None:
                check_range(f"data.{key}", getattr(self, key), low=1, unit="rows")
        check_range("data.validation_fraction", self.validation_fraction, low=0, high=1, high_open=True)


@dataclass(frozen=True, slots=True)
class SubstrateConfig:
    """Which substrate, how wide, and which chip of its kind.

    Attributes
    ----------
    name : str
        A substrate's name, or ``FILE.py:NAME``.
    hidden : tuple of int
        Widths of the hidden layers; input and output widths come from the data.
    options : dict
        Keyword options that replace those of the preset.
    chip : int
        Seed of the static errors of the devices.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = "hopfield-ideal"
    hidden: tuple[int, ...] = (64,)
    options: dict[str, Any] = field(default_factory=dict)
    chip: int = 0

    def __post_init__(self) -> None:
        check_range("substrate.chip", self.chip, low=0)
        for width in self.hidden:
            check_range("substrate.hidden", width, low=1, unit="nodes")


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """Which rule, and the hyperparameters that replace its defaults.

    Attributes
    ----------
    name : str
        A rule's name, or ``FILE.py:NAME``.
    hyper : dict
        Hyperparameters by name; those not named keep the rule's defaults.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str = "equilibrium-propagation"
    hyper: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How long and how fast, from where, on what.

    Attributes
    ----------
    epochs, batch_size : int
        Passes over the training rows, and rows per update; the last batch of an epoch may be smaller.
    rates : float or tuple of float, optional
        Learning rate, one for all layers or one per layer from the input on; the rule's own when absent.
    rate_factor : float
        What every rate is multiplied by: what a grid varies.
    schedule : str
        ``"constant"``; ``"cosine"`` from the rate down to zero over all updates; ``"one-cycle"`` up to the rate and down again
        (`inmaterio.learning_rules.schedules.schedule`).
    optimiser : str
        Name of the optimiser, such as ``"sgd"`` or ``"adam"``.
    momentum, weight_decay : float
        Of the optimiser.
    write_mode : str
        ``"master copy"``: the optimiser works on a float copy in the host and writes it. ``"in place"``: changes are
        added to what the devices hold.
    initialisation : str
        Scheme of the first values.
    gain : float
        What the scheme's spread is multiplied by.
    trained : str
        ``"all"``, or ``"readout"``: hidden layers keep their first values.
    labels : str
        ``"true"``, or ``"shuffled"`` among the training rows.
    fit_on, evaluate_on : str
        Which rows are trained on (``"train"``, ``"train+validation"``) and which the run ends on (``"validation"``, ``"test"``).
    probe_epochs : tuple of int, optional
        After which epochs the gradient is compared with the exact one; 0 is before the first. When absent: 0, 1, the
        middle, the last.
    placement : str
        ``"chip"``: trained on the substrate. ``"twin-deployed"``: trained on its digital twin, written to it once at the end.
        ``"digital-readout"``: the substrate keeps its first values, and a digital map in the host behind the measured states of
        its last hidden layer is trained.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    epochs: int = 20
    batch_size: int = 20
    rates: float | tuple[float, ...] | None = None
    rate_factor: float = 1.0
    schedule: str = "cosine"
    optimiser: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    write_mode: str = "master copy"
    initialisation: str = "glorot-uniform"
    gain: float = 0.5
    trained: str = "all"
    labels: str = "true"
    fit_on: str = "train"
    evaluate_on: str = "test"
    probe_epochs: tuple[int, ...] | None = None
    placement: str = "chip"

    def __post_init__(self) -> None:
        check_range("training.epochs", self.epochs, low=1)
        check_range("training.batch_size", self.batch_size, low=1, unit="rows")
        for rate in self.rates if isinstance(self.rates, tuple) else () if self.rates is None else (self.rates,):
            check_range("training.rates", rate, low=0, low_open=True, high_open=True)
        check_range("training.rate_factor", self.rate_factor, low=0, low_open=True, high_open=True)
        check_range("training.momentum", self.momentum, low=0, high=1, high_open=True)
        check_range("training.weight_decay", self.weight_decay, low=0, high_open=True)
        check_range("training.gain", self.gain, low=0, low_open=True, high_open=True)
        for key, known in (
            ("schedule", SCHEDULES),
            ("optimiser", ARITHMETIC),
            ("write_mode", WRITE_MODES),
            ("initialisation", SCHEMES),
            ("trained", TRAINED),
            ("labels", LABELS),
            ("fit_on", FIT_ON),
            ("evaluate_on", EVALUATE_ON),
            ("placement", PLACEMENTS),
        ):
            check_name(f"training.{key}", getattr(self, key), known)
        if self.write_mode == "in place" and (self.optimiser != "sgd" or self.momentum or self.weight_decay):
            raise InputError(
                "training.write_mode is 'in place', where the host keeps nothing; "
                "expected optimiser 'sgd' without momentum or weight decay"
            )
        if self.fit_on == "train+validation" and self.evaluate_on == "validation":
            raise InputError(
                "training.evaluate_on is 'validation', whose rows are trained on; expected 'test' with fit_on 'train+validation'"
            )
        for epoch in self.probe_epochs or ():
            check_range("training.probe_epochs", epoch, low=0, high=self.epochs)

    def probes(self) -> tuple[int, ...]:
        """After which epochs the gradient is probed, in order."""
        chosen = (0, 1, self.epochs // 2, self.epochs) if self.probe_epochs is None else self.probe_epochs
        return tuple(sorted(set(chosen)))


@dataclass(frozen=True, slots=True)
class DisturbanceConfig:
    """How the physics of the chip changes in mid-training; nothing is told to the rule.

    Attributes
    ----------
    kind : str
        ``"none"``; ``"knock"``: once, by `size`; ``"drift"``: by an independent step of size / sqrt(steps) between any two of
        the epochs that are left.
    epoch : int
        After this epoch the chip is changed, for the first time; training must have epochs left then.
    size : float
        Relative size of the change, as the substrate takes it; 0 changes nothing: what a disturbed run is compared with.
    adapt : bool
        Whether training goes on after `epoch`. Otherwise the epochs that are left only show what the chip does. A twin that is
        deployed once (``training.placement = "twin-deployed"``) is written to the chip after `epoch`, and never again.
    recalibrate : bool
        Whether a chip whose detectors were calibrated is calibrated again right after a change, at the values it then holds.
        Otherwise what training began with stays, and a shift of the background stays in all that is read.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: str = "none"
    epoch: int = 0
    size: float = 0.0
    adapt: bool = True
    recalibrate: bool = False

    def __post_init__(self) -> None:
        check_name("disturbance.kind", self.kind, DISTURBANCES)
        check_range("disturbance.epoch", self.epoch, low=0, unit="epochs")
        check_range("disturbance.size", self.size, low=0, high_open=True)
        if self.kind == "none" and (self.epoch or self.size or not self.adapt or self.recalibrate):
            raise InputError("disturbance.kind is 'none', with which nothing else can be set; expected 'knock' or 'drift'")

    def times(self, epochs: int) -> range:
        """The epochs after which the chip is changed."""
        last = {"none": self.epoch, "knock": self.epoch + 1, "drift": epochs}[self.kind]
        return range(self.epoch, last)

    def rests(self, epoch: int) -> bool:
        """Whether training is over after so many epochs."""
        return not self.adapt and epoch >= self.epoch


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One run, complete.

    Attributes
    ----------
    data, substrate, rule, training, disturbance
        See there.
    partners : dict of SubstrateConfig
        For a rule of several roles: the substrates of every role but one, by role; `substrate` fills the one left.
    seed : int
        Seed of initialisation, data order and noise.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    data: DataConfig = field(default_factory=DataConfig)
    substrate: SubstrateConfig = field(default_factory=SubstrateConfig)
    rule: RuleConfig = field(default_factory=RuleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    disturbance: DisturbanceConfig = field(default_factory=DisturbanceConfig)
    partners: dict[str, SubstrateConfig] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("seed", self.seed, low=0)
        if self.disturbance.kind == "none":
            return
        check_range("disturbance.epoch", self.disturbance.epoch, low=1, high=self.training.epochs, high_open=True, unit="epochs")
        if self.training.fit_on != "train":
            raise InputError(
                f"training.fit_on is {self.training.fit_on!r}, which leaves no rows to see a disturbance on; expected 'train'"
            )
        if self.training.placement == "twin-deployed" and self.disturbance.adapt:
            raise InputError(
                "training.placement is 'twin-deployed', which is written to the chip once; expected disturbance.adapt = false"
            )


def parse_config(text: str, source: str = "configuration") -> RunConfig:
    """A configuration from TOML text.

    Raises
    ------
    InputError
        Naming `source` and, for a key that is unknown or of the wrong type, the path of the key.
    """
    from pydantic import ValidationError

    try:
        # Through JSON, where a list may stand for a tuple although types are strict.
        document = json.dumps(tomllib.loads(text), default=str)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not TOML: {error}") from None
    try:
        return _adapter().validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise InputError(f"{source}: {cause}") from None
        default = RunConfig()
        known = {one.name for one in dataclasses.fields(RunConfig)}
        for section in ("data", "substrate", "rule", "training", "disturbance"):
            known |= {f"{section}.{one.name}" for one in dataclasses.fields(getattr(default, section))}
        path = _key_path(first["loc"], known)
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            section = path.rpartition(".")[0]
            siblings = {
                one.rpartition(".")[2]
                for one in known
                if one.rpartition(".")[0] == ("substrate" if section.startswith("partners") else section)
            }
            try:
                check_name("key", path.rpartition(".")[2], siblings)
            except InputError as unknown:
                raise InputError(f"{source}: {path}: {unknown}") from None
        raise InputError(f"{source}: {path}: {_lower(first['msg'])}; got {first.get('input')!r}") from None


@functools.cache
def _adapter() -> "TypeAdapter[RunConfig]":
    from pydantic import TypeAdapter

    return TypeAdapter(RunConfig)


def _key_path(places: tuple[int | str, ...], known: set[str]) -> str:
    """Dotted path of a key; what the validator adds to name a branch of a union is left out."""
    path = ""
    for place in places:
        complete = path == "seed" or ("." in path and path in known and path not in ("substrate.options", "rule.hyper"))
        if complete and isinstance(place, str):
            continue
        path = f"{path}[{place}]" if isinstance(place, int) else f"{path}.{place}" if path else place
    return path


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def load_config(path: Path, *, locate: bool = False) -> RunConfig:
    """The configuration in a TOML file.

    Parameters
    ----------
    path : Path
    locate : bool
        Give files of the user by their whole path: see `located`. Otherwise they are named as in the file.

    Raises
    ------
    InputError
        When the file cannot be read, or as `parse_config`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read configuration {path}: {getattr(error, 'strerror', None) or error}") from None
    config = parse_config(text, str(path))
    return located(config, Path(path).parent) if locate else config


def located(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with relative ``FILE.py:NAME`` found in a folder, that of the TOML file, where they are there.

    Those that are not there stay relative to the current folder.
    """
    return with_names(config, lambda name: placed(name, folder))


def with_names(config: RunConfig, new: Callable[[str], str]) -> RunConfig:
    """The configuration with the names of its rule and all its substrates replaced."""
    return replace(
        config,
        rule=replace(config.rule, name=new(config.rule.name)),
        substrate=replace(config.substrate, name=new(config.substrate.name)),
        partners={role: replace(one, name=new(one.name)) for role, one in config.partners.items()},
    )


def to_toml(config: RunConfig) -> str:
    """The whole configuration as TOML, defaults included; a key whose value is None is left out."""
    return write_toml(dataclasses.asdict(config))
