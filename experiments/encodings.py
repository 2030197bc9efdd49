"""From data to the units of a substrate's port and back, in the same way for every rule.

Statistics come from the rows that are fitted on and from no others; the same frozen encoding then serves training,
validation and test rows.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inmaterio.devices.validation import InputError, check_array, check_name, check_range
from inmaterio.simulators.capabilities import Port

Floats = NDArray[np.float64]

SCHEMES = ("auto", "maximum", "standard", "common", "counts")
"""Ways to map inputs: see `fit_encoding`."""

STANDARD_REACH = 3.0
"""Standard deviations from the mean that the "standard" scheme puts at a port's limits: 0.3 % of a normal feature is clipped."""

USED_RANGE = 0.8
"""Share of a bounded output's range that regression targets fill, so that they can be reached and passed."""


@dataclass(frozen=True, slots=True, eq=False)
class InputEncoding:
    """encoded = middle + reach * (inputs - shift) / divisor, clipped to the port's range.

    Attributes
    ----------
    scheme : str
        ``"maximum"``, ``"standard"``, ``"common"`` or ``"counts"``.
    port : Port
        Where the data enter; its unit is that of what `encode` returns.
    shift, divisor : ndarray, shape (features,)
        In the data's units.
    reach : ndarray, shape (features,)
        In the port's unit; 0 for a feature that is constant in the fitted rows.
    middle : float
        In the port's unit.
    """

    scheme: str
    port: Port
    shift: Floats
    divisor: Floats
    reach: Floats
    middle: float

    def encode(self, inputs: ArrayLike) -> Floats:
        """Inputs in the port's unit, clipped to its range.

        Parameters
        ----------
        inputs : array_like, shape (n, features)
            In the data's units.

        Returns
        -------
        ndarray, shape (n, features)
            A new array.

        Raises
        ------
        InputError
            When the number of features is another, or a value is not finite or too large to become a finite number.
        """
        encoded = self._unclipped(inputs)
        np.clip(encoded, self.port.low, self.port.high, out=encoded)
        check_array("encoded inputs", encoded, unit=self.port.unit)
        return encoded

    def clipped_fraction(self, inputs: ArrayLike) -> float:
        """Fraction of the elements of `inputs`, shape (n, features), that `encode` clips; 0 for no rows."""
        encoded = self._unclipped(inputs)
        return float(np.mean((encoded < self.port.low) | (encoded > self.port.high))) if encoded.size else 0.0

    def _unclipped(self, inputs: ArrayLike) -> Floats:
        rows = check_array("inputs", inputs, shape=(None, self.port.size)).astype(np.float64)
        if self.scheme == "counts":
            return rows
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is clipped, or refused by encode
            rows -= self.shift
            rows /= self.divisor
            rows *= self.reach
            rows += self.middle
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class TargetEncoding:
    """What the outputs should be: one-hot levels for classes, an affine map for values.

    Attributes
    ----------
    port : Port
        Where outputs leave.
    classes : int
        Number of classes; 0 for regression.
    low, high : float
        Levels of a wrong and of the right class, in the port's unit; for regression the limits of encoded targets.
    centre, span : ndarray, shape (outputs,)
        For regression: targets at `middle`, and the width in the data's units that becomes `reach`. Empty for classes.
    middle, reach : float
        In the port's unit.
    chance_error : float
        Metric of the best answer that ignores the inputs: for classes the error of always naming the commonest one of
        the fitted rows, on rows distributed alike; for regression 1, the normalised error of predicting the mean.
    """

    port: Port
    classes: int
    low: float
    high: float
    centre: Floats
    span: Floats
    middle: float
    reach: float
    chance_error: float

    def encode(self, answers: ArrayLike) -> Floats:
        """Wanted outputs in the port's unit.

        Parameters
        ----------
        answers : array_like
            Class labels, shape (n,), or targets in the data's units, shape (n, outputs).

        Returns
        -------
        ndarray, shape (n, outputs)
            Values outside what the port can show are clipped to its range.

        Raises
        ------
        InputError
            When a label is not one of 0 to classes - 1, or the shape is wrong.
        """
        if self.classes:
            labels = _check_labels(answers, self.classes)
            return np.where(labels[:, None] == np.arange(self.classes), self.high, self.low)
        targets = check_array("targets", answers, shape=(None, self.port.size)).astype(np.float64)
        return np.clip(self.middle + self.reach * ((targets - self.centre) / self.span), self.low, self.high)

    def decode(self, outputs: ArrayLike) -> NDArray[np.int64] | Floats:
        """Answers from outputs or scores.

        Parameters
        ----------
        outputs : array_like, shape (n, outputs)
            In the port's unit; for classes any scores, highest wins, the first one of equals.

        Returns
        -------
        ndarray
            Class labels of int64, shape (n,), or values in the data's units, shape (n, outputs).

        Raises
        ------
        InputError
            When the shape is wrong or a value is not finite.
        """
        scores = check_array("outputs", outputs, shape=(None, self.port.size))
        if self.classes:
            return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)
        return np.asarray(self.centre + self.span * ((scores.astype(np.float64) - self.middle) / self.reach))


def fit_encoding(inputs_train: ArrayLike, port: Port, *, scheme: str = "auto") -> InputEncoding:
    """Fit the map from inputs to a port on training rows.

    - ``"maximum"``: inputs / max|inputs_train| * limit. Zero stays zero, so an empty pixel drives nothing. The limit is the
      port's upper one, or for signed data the nearer of the two, so that no training row is clipped.
    - ``"standard"``: (inputs - mean) / (3 std) per feature, with -1 and 1 at the port's limits; a feature that is constant in the
      training rows is held at the port's middle. A port without limits gets (inputs - mean) / std.
    - ``"common"``: one divisor for all features and no shift, which keeps the shape of a waveform. As ``"maximum"`` where the
      port takes what the data are; signed data on a port of one sign go about its middle, -max and max to its limits.
    - ``"counts"``: numbers of spikes stay what they are, where the port takes any number from 0 up; a port with an upper limit
      gets ``"maximum"``, and a raster of 0 and 1 stays one there too when the limit is 1.
    - ``"auto"``: ``"maximum"`` when no training input is negative, else ``"standard"``.

    A limit that the port lacks counts as 1 or -1 of its unit.

    Parameters
    ----------
    inputs_train : array_like, shape (n, features)
        The rows to fit on, in the data's units; at least one.
    port : Port
        The substrate's input port, of as many places as there are features.
    scheme : str
        One of `SCHEMES`.

    Returns
    -------
    InputEncoding

    Raises
    ------
    InputError
        When the scheme is unknown, shapes or values do not fit, or the port's range cannot carry the scheme (``"maximum"``
        needs zero inside it, and numbers below zero if the data have them).
    """
    check_name("encoding", scheme, SCHEMES)
    if scheme == "counts" and port.low <= 0 and port.high == np.inf:
        # nothing is fitted: rows of many steps are not copied into float64 for it
        check_array("training inputs", inputs_train, shape=(None, port.size), low=0)
        ones = np.ones(port.size)
        return InputEncoding(scheme, port, np.zeros(port.size), ones, ones, 0.0)
    rows = check_array("training inputs", inputs_train, shape=(None, port.size)).astype(np.float64)
    check_range("number of training rows", len(rows), low=1)
    signed = bool((rows < 0).any())
    low, high = _window(port)
    if scheme in ("maximum", "counts") or (scheme == "auto" and not signed):
        return _fit_maximum(rows, port, low, high, signed)
    if scheme == "common":
        return _fit_common(rows, port, low, high, signed)
    return _fit_standard(rows, port, low, high)


def scheme_for(kind: str) -> str:
    """Scheme for a kind of inputs: ``"common"`` for waveforms and bits, ``"counts"`` for spikes, else ``"auto"``."""
    return {"features": "auto", "spikes": "counts"}.get(kind, "common")


def _fit_maximum(rows: Floats, port: Port, low: float, high: float, signed: bool) -> InputEncoding:
    if not low <= 0 < high or (signed and low == 0):
        need = "both signs" if signed else "zero and above"
        raise InputError(f"encoding 'maximum' needs a port that takes {need}; its range is {_range(port)}")
    largest = float(np.abs(rows).max())
    limit = min(high, -low) if signed else high
    width = rows.shape[1]
    reach = np.full(width, limit if largest > 0 else 0.0)
    return InputEncoding("maximum", port, np.zeros(width), np.full(width, largest if largest > 0 else 1.0), reach, 0.0)


def _fit_common(rows: Floats, port: Port, low: float, high: float, signed: bool) -> InputEncoding:
    if low <= 0 < high and (low < 0 or not signed):
        return replace(_fit_maximum(rows, port, low, high, signed), scheme="common")
    largest = float(np.abs(rows).max())
    width = rows.shape[1]
    reach = np.full(width, (high - low) / 2 if largest > 0 else 0.0)
    divisor = np.full(width, largest if largest > 0 else 1.0)
    return InputEncoding("common", port, np.zeros(width), divisor, reach, (low + high) / 2)


def _fit_standard(rows: Floats, port: Port, low: float, high: float) -> InputEncoding:
    with np.errstate(over="ignore", invalid="ignore"):  # refused in the next line
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise InputError(f"training inputs reach {np.abs(rows).max():g}; expected a finite mean and standard deviation")
    # Rounding can leave a spread of 1e-17 in a constant feature, and underflow none in one that varies: both count as constant.
    constant = (rows.max(axis=0) == rows.min(axis=0)) | (STANDARD_REACH * deviation == 0)
    unlimited = not np.isfinite(port.low) and not np.isfinite(port.high)
    half_width = STANDARD_REACH if unlimited else (high - low) / 2
    middle = 0.0 if unlimited else (low + high) / 2
    divisor = np.where(constant, 1.0, STANDARD_REACH * deviation)
    return InputEncoding("standard", port, mean, divisor, np.where(constant, 0.0, half_width), middle)


def fit_targets(answers_train: ArrayLike, port: Port, *, classes: int = 0) -> TargetEncoding:
    """Fit what outputs should be on the answers of training rows.

    Classification: one-hot between the port's limits (0 and 1, or -1 and 1); 0 and 1 when a limit is missing. Regression, per
    output: the training minimum and maximum become the ends of the middle 80 % of a bounded port; a port without limits
    gets (targets - mean) / std.

    Parameters
    ----------
    answers_train : array_like
        Class labels, shape (n,), or targets in the data's units, shape (n, outputs).
    port : Port
        The substrate's output port.
    classes : int
        Number of classes, equal to ``port.size``; 0 for regression.

    Returns
    -------
    TargetEncoding

    Raises
    ------
    InputError
        When the port has another size than the answers, or a range without room for them.
    """
    check_range("number of classes", classes, low=0)
    bounded = bool(np.isfinite(port.low) and np.isfinite(port.high))
    _window(port)
    if classes:
        labels = _check_labels(answers_train, classes)
        check_range("number of training rows", len(labels), low=1)
        if port.size != classes:
            raise InputError(f"output port has {port.size} places; expected {classes}, one per class")
        low, high = (float(port.low), float(port.high)) if bounded else (0.0, 1.0)
        if low < port.low or high > port.high:
            raise InputError(f"output range is {_range(port)}; expected one that holds 0 and 1, or two limits")
        commonest = float(np.bincount(labels, minlength=classes).max()) / len(labels)
        return TargetEncoding(port, classes, low, high, np.zeros(0), np.zeros(0), 0.0, 1.0, 1.0 - commonest)
    targets = check_array("training targets", answers_train, shape=(None, port.size)).astype(np.float64)
    check_range("number of training rows", len(targets), low=1)
    least, most = targets.min(axis=0), targets.max(axis=0)
    if not bounded and (np.isfinite(port.low) or np.isfinite(port.high)):
        raise InputError(f"output range is {_range(port)}; expected two limits or none for regression targets")
    middle, reach = ((port.low + port.high) / 2, USED_RANGE * (port.high - port.low)) if bounded else (0.0, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # refused in the next line
        centre, span = (least / 2 + most / 2, most - least) if bounded else (targets.mean(axis=0), targets.std(axis=0))
    if not (np.isfinite(centre).all() and np.isfinite(span).all()):
        raise InputError(f"training targets reach {np.abs(targets).max():g}; expected a finite mean and spread")
    span = np.where((most == least) | (span == 0), 1.0, span)
    return TargetEncoding(port, 0, port.low, port.high, centre, span, middle, reach, 1.0)


def _window(port: Port) -> tuple[float, float]:
    """The port's limits, with -1 and 1 for those it lacks.

    Raises
    ------
    InputError
        When nothing lies between them.
    """
    low = port.low if np.isfinite(port.low) else -1.0
    high = port.high if np.isfinite(port.high) else 1.0
    if not low < high:
        raise InputError(f"port range is {_range(port)}; expected room between the limits, 1 or -1 where one is missing")
    return low, high


def _range(port: Port) -> str:
    return f"[{port.low:g}, {port.high:g}] {port.unit}"


def _check_labels(answers: ArrayLike, classes: int) -> NDArray[np.int64]:
    labels = check_array("labels", answers, shape=(None,), low=0, high=classes - 1)
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels hold {labels.dtype} values; expected whole numbers")
    return labels.astype(np.int64)
