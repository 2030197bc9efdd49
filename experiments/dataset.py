"""What a data set is: inputs, their answers, and what has to be known of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.experiments.splits import Rows, Split

Inputs = NDArray[np.float64] | NDArray[np.uint8]

KINDS = ("features", "waveform", "bits", "spikes")
"""What the inputs of a row are: quantities of their own, samples of one signal, bits of -1 and 1 with noise, or numbers of
spikes. The last three are all on one scale, and zero means nothing: no feature is scaled or shifted apart from the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Inputs and their answers.

    Attributes
    ----------
    name : str
        As `load_data` takes it.
    inputs : ndarray of float64 or uint8, shape (n, features)
        In `feature_unit`. Spikes: element t * channels + c of a row is how many spikes channel c sends in step t.
    task : str
        ``"classification"`` or ``"regression"``.
    labels : ndarray of int64, shape (n,), or None
        Class of each row, 0 to ``classes - 1``; None for regression.
    targets : ndarray of float64, shape (n, outputs), or None
        In `target_unit`; None for classification.
    classes : int
        Number of classes; 0 for regression.
    target_names : tuple of str
        One per class, or one per output.
    feature_unit, target_unit : str
        What one unit of the numbers is.
    default_split : Split or None
        The split the set is published with; None when it has none. Where its validation part is empty, `split` draws validation
        rows from its training part; where it is not, they are kept.
    groups : ndarray of int64, shape (n,), or None
        Who or what each row comes from, such as the speaker: `split` keeps all rows of a group on one side. None when every row
        stands for itself.
    kind : str
        One of `KINDS`: how the inputs may be scaled.
    steps : int
        Time steps of a row, each of as many channels; 0 when there is no time in it. At least 1 for spikes.
    seconds_per_step : float
        Duration of a step, s; 0 without time.
    notes : tuple of str
        What a reader of results has to know of the data: that they are made, resampled, and the like. One line each.

    Raises
    ------
    InputError
        When shapes, numbers of rows, labels or steps do not fit each other, spikes are fewer than none, or a published split has
        a group on two sides.
    """

    name: str
    inputs: Inputs
    task: Literal["classification", "regression"]
    labels: Rows | None = None
    targets: NDArray[np.float64] | None = None
    classes: int = 0
    target_names: tuple[str, ...] = ()
    feature_unit: str = "1"
    target_unit: str = "1"
    default_split: Split | None = None
    groups: Rows | None = None
    kind: Literal["features", "waveform", "bits", "spikes"] = "features"
    notes: tuple[str, ...] = ()
    steps: int = 0
    seconds_per_step: float = 0.0

    def __post_init__(self) -> None:
        check_name("task", self.task, ("classification", "regression"))
        check_name("kind of inputs", self.kind, KINDS)
        check_array("inputs", self.inputs, shape=(None, None), low=0 if self.kind == "spikes" else None)
        check_range("number of rows", len(self.inputs), low=1)
        if self.task == "classification":
            if self.labels is None or self.targets is not None:
                raise InputError(f"data set {self.name} is for classification; expected labels and no targets")
            check_range("number of classes", self.classes, low=2)
            check_array("labels", self.labels, shape=(len(self.inputs),), low=0, high=self.classes - 1)
        else:
            if self.targets is None or self.labels is not None or self.classes:
                raise InputError(f"data set {self.name} is for regression; expected targets, no labels and 0 classes")
            check_array("targets", self.targets, shape=(len(self.inputs), None))
        self._check_time()
        if self.groups is not None:
            check_array("groups", self.groups, shape=(len(self.inputs),))
            if self.default_split is not None:
                parts = self.default_split
                for one, other in ((parts.train_and_validation, parts.test), (parts.train, parts.validation)):
                    both = np.intersect1d(self.groups[one], self.groups[other])
                    if len(both):
                        raise InputError(
                            f"published split of {self.name} has group {both[0]} on both sides; expected whole groups"
                        )

    def _check_time(self) -> None:
        check_range("steps", self.steps, low=1 if self.kind == "spikes" else 0)
        if int(self.steps) != self.steps:
            raise InputError(f"steps is {self.steps}; expected a whole number")
        if not self.steps and self.seconds_per_step:
            length = f"{self.seconds_per_step:g} s per step"
            raise InputError(f"data set {self.name} has {length} and no steps; expected both or neither")
        if self.steps:
            check_range("seconds_per_step", self.seconds_per_step, low=0.0, low_open=True, high_open=True, unit="s")
            if self.features % self.steps:
                raise InputError(
                    f"data set {self.name} has rows of {self.features} elements, which {self.steps} steps do not divide; "
                    "expected steps x channels"
                )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def features(self) -> int:
        """Numbers per row."""
        return int(self.inputs.shape[1])

    @property
    def channels(self) -> int:
        """Numbers per step; per row when there is no time in it."""
        return self.features // max(self.steps, 1)

    @property
    def outputs(self) -> int:
        """Places an output port needs: the classes, or the targets per row."""
        return self.classes if self.targets is None else int(self.targets.shape[1])

    @property
    def answers(self) -> Rows | NDArray[np.float64]:
        """The labels or the targets, whichever there are."""
        found = self.labels if self.targets is None else self.targets
        assert found is not None  # held by __post_init__
        return found
