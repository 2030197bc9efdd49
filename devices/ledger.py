"""The ledger: physical events counted where they happen, under the phase that caused them.

A simulator counts; it never multiplies by joules. `inmaterio.devices.costs` holds joules per event, and a report
multiplies one by the other, so that a reader can replace any constant without running anything again.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from inmaterio.devices.validation import InputError

RUN_PHASES = ("initialise", "train", "evaluate", "infer", "idle")
"""Phases a run opens. `evaluate` is shown in reports and not charged."""

RULE_PHASES = ("free", "nudged", "positive", "negative", "perturbed", "backward", "twin", "solve", "update", "verify")
"""Phases a rule opens inside `train`."""

TALLIES = ("device_pass", "step", "second", "program_call", "sample")
"""What is counted apart from energy: see `Ledger.tally`."""


@dataclass(slots=True)
class Ledger:
    """Counts of physical events, keyed (phase, role, component, event), and tallies keyed (phase, role, name).

    A phase is ``"train/free"`` where a rule opened `free` inside the run's `train`, ``"infer"`` where nothing was
    opened inside. A role says whose event it is when a rule drives several substrates (``"substrate"``, ``"model"``,
    ``"solver"``, ``"host"``).

    Attributes
    ----------
    events : dict
        Amount of each event: a number of conversions, MACs or bytes, joules dissipated in a resistor, seconds times
        devices under static power. The unit is the event's own, named in ``costs.csv``.
    tallies : dict
        Device passes, steps, seconds, program calls and samples: see `TALLIES`.
    """

    events: dict[tuple[str, str, str, str], float] = field(default_factory=dict)
    tallies: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Open a phase for the length of a ``with`` block.

        Raises
        ------
        InputError
            When the name is unknown, a run phase is opened inside another, or a rule phase stands outside `train`
            and `evaluate` (where gradients are probed without being charged).
        """
        if not self._open and name not in RUN_PHASES:
            raise InputError(f"phase {name!r} is not one a run opens; expected one of {', '.join(RUN_PHASES)}")
        if self._open and (name not in RULE_PHASES or len(self._open) > 1 or self._open[0] not in ("train", "evaluate")):
            raise InputError(
                f"phase {name!r} cannot be opened inside {'/'.join(self._open)}; "
                f"inside train or evaluate one of {', '.join(RULE_PHASES)}"
            )
        self._open.append(name)
        try:
            yield
        finally:
            self._open.pop()

    @property
    def current(self) -> str:
        """The open phase, such as ``"train/free"``; empty when none is open."""
        return "/".join(self._open)

    def count(self, role: str, component: str, event: str, amount: float) -> None:
        """Add `amount` of an event that happens now.

        Raises
        ------
        InputError
            When no phase is open (the event would be charged to nobody) or the amount is negative or not a number.
        """
        if not self._open:
            raise InputError(
                f"event {event!r} of {component!r} happened outside a phase; open one of {', '.join(RUN_PHASES)} first"
            )
        if not 0.0 <= amount < math.inf:
            raise InputError(f"amount of {event!r} is {amount!r}; expected a number >= 0")
        key = (self.current, role, component, event)
        self.events[key] = self.events.get(key, 0.0) + float(amount)

    def tally(self, role: str, name: str, amount: float) -> None:
        """Add to one of `TALLIES` under the open phase.

        A device pass is one sample driven and read once: a settling or a whole sequence is one; each class candidate,
        perturbation, complex point or reverse drive is one more.

        Raises
        ------
        InputError
            As `count`, or when `name` is not one of `TALLIES`.
        """
        if name not in TALLIES:
            raise InputError(f"tally {name!r} is unknown; expected one of {', '.join(TALLIES)}")
        if not self._open:
            raise InputError(f"{name} counted outside a phase; open one of {', '.join(RUN_PHASES)} first")
        if not 0.0 <= amount < math.inf:
            raise InputError(f"amount of {name!r} is {amount!r}; expected a number >= 0")
        key = (self.current, role, name)
        self.tallies[key] = self.tallies.get(key, 0.0) + float(amount)

    def total(self, tally: str, *phases: str) -> float:
        """Sum of a tally over every role, in the phases named (and what was opened inside them), or in all."""
        return sum(
            amount
            for (phase, _, name), amount in self.tallies.items()
            if name == tally and (not phases or phase.split("/")[0] in phases)
        )

    def to_records(self) -> dict[str, list[list[str | float]]]:
        """The whole ledger as plain lists, for a checkpoint or a wire."""
        return {
            "events": [[*key, amount] for key, amount in self.events.items()],
            "tallies": [[*key, amount] for key, amount in self.tallies.items()],
        }

    @classmethod
    def from_records(cls, records: dict[str, list[list[str | float]]]) -> "Ledger":
        """A ledger with the counts of `to_records`."""
        ledger = cls()
        ledger.load_records(records)
        return ledger

    def load_records(self, records: dict[str, list[list[str | float]]]) -> None:
        """Replace every count with those of `to_records`, keeping this object (substrates hold a reference to it)."""
        self.events = {(str(p), str(r), str(c), str(e)): float(n) for p, r, c, e, n in records["events"]}
        self.tallies = {(str(p), str(r), str(t)): float(n) for p, r, t, n in records["tallies"]}
