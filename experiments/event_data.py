"""Data sets of spikes from files of events: SHD and SSC, with their published splits.

A folder holds ``shd_train.h5`` and ``shd_test.h5``, or ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, as unpacked from
their authors' archives, or as the package tonic leaves them: there FOLDER is its ``save_to/SHD`` or ``save_to/SSC``. What a file
holds and who published it stands in `event_files`.
"""

from pathlib import Path

import numpy as np

from inmaterio.devices.validation import InputError
from inmaterio.experiments.data_names import options_of, real_number, whole_number, yes_or_no
from inmaterio.experiments.dataset import Dataset
from inmaterio.experiments.event_files import UNITS, Binning, EventFile, counts_of, read_event_file
from inmaterio.experiments.splits import Rows, Split

FILES = {"shd": ("train", "test"), "ssc": ("train", "valid", "test")}
"""Parts of each set, each a file; the last one is for test."""


def load_events(head: str, text: str) -> Dataset:
    """The data set ``shd:FOLDER`` or ``ssc:FOLDER``, with its published split.

    ``shd:FOLDER?step=10e-3&channels=140&steps=100&aligned=1&binary=0&cut=1&sort=0&units=700``: see `Binning`.

    SSC is published with validation rows, those of its file ``valid``: they are the validation rows for every split seed,
    whatever the validation fraction is, so that results compare with published ones. With ``merge=1`` that file is joined to
    ``train``, and validation rows are drawn from both, by speaker. SHD has no such file: its validation rows are drawn from
    ``train``, by speaker. Ten of the twelve speakers of SHD are in its training and in its test file: rows of each published part
    therefore count as groups of their own, and the validation rows of SHD, all of speakers that were not trained on, are the
    harder ones.

    Parameters
    ----------
    head : str
        A key of `FILES`.
    text : str
        Folder, with options behind a ``?``.

    Raises
    ------
    InputError
        When an option is bad, a file is missing or as `read_event_file` says.
    """
    folder, _, options = text.partition("?")
    try:
        place = Path(folder).expanduser()
    except RuntimeError as error:
        raise InputError(f"data set {head}:{folder}: {error}") from error
    name = f"{head}:FOLDER"
    merge = ("merge",) if "valid" in FILES[head] else ()
    chosen = options_of(name, options, ("step", "channels", "steps", "aligned", "binary", "cut", "sort", "units", *merge))
    merged = yes_or_no(chosen, "merge", False)
    binning = Binning(
        step_s=real_number(name, chosen, "step", 10e-3, low=0.0, low_open=True, unit="s"),
        units=whole_number(chosen, "units", UNITS, low=1),
        channels=whole_number(chosen, "channels", 140, low=1),
        steps=whole_number(chosen, "steps", 100, low=1) if "steps" in chosen else None,
        aligned=yes_or_no(chosen, "aligned", True),
        binary=yes_or_no(chosen, "binary", False),
        cut=yes_or_no(chosen, "cut", False),
        sort=yes_or_no(chosen, "sort", False),
    )
    if not place.is_dir():
        raise InputError(f"{place} is not a folder; expected one with {', '.join(f'{head}_{part}.h5' for part in FILES[head])}")
    files = [read_event_file(place / f"{head}_{part}.h5", binning) for part in FILES[head]]
    steps = binning.steps or max(file.longest for file in files)
    labels = np.concatenate([file.labels for file in files])
    fitted = sum(len(file.labels) for file in files[:-1])
    validated = "valid" in FILES[head] and not merged
    trained = len(files[0].labels) if validated else fitted
    names = next((file.class_names for file in files if file.class_names), ())
    classes = len(names) or int(labels.max()) + 1
    made = f"events in steps of {binning.step_s:g} s, sums of {binning.units // binning.channels} neighbouring channels"
    groups, said = _groups(files, validated)
    notes = [f"{made}, from {'each first spike' if binning.aligned else 'the beginning'} on", said]
    if validated:
        notes.append(
            f"published validation rows, the {fitted - trained} of {head}_valid.h5, for every split seed: the validation "
            "fraction is ignored"
        )
    elif merged:
        notes.append(
            f"merge=1: {head}_valid.h5 is joined to {head}_train.h5 and validation rows are drawn anew from both; validation "
            "results do not compare with published ones"
        )
    rows = np.arange(len(labels), dtype=np.int64)
    return Dataset(
        name=f"{head}:{text}",
        inputs=np.concatenate([counts_of(file, binning, steps) for file in files]),
        task="classification",
        labels=labels,
        classes=classes,
        target_names=names or tuple(str(label) for label in range(classes)),
        feature_unit="spikes",
        default_split=Split(rows[:trained], rows[trained:fitted], rows[fitted:]),
        groups=groups,
        kind="spikes",
        steps=steps,
        seconds_per_step=binning.step_s,
        notes=tuple(notes),
    )


def _groups(files: list[EventFile], validated: bool) -> tuple[Rows | None, str]:
    """Speakers as groups, those of test rows and of published validation rows apart, and what to say of them."""
    parts = [file.speakers for file in files if file.speakers is not None]
    if len(parts) < len(files):
        which = "validation and test rows" if validated else "validation rows"
        return None, f"the files do not name the speakers: {which} may be of speakers that were trained on"
    sides = [*parts] if validated else [np.concatenate(parts[:-1]), parts[-1]]
    train, test = sides[0], sides[-1]

    def shared(part: Rows) -> str:
        return (
            f"{len(np.intersect1d(train, part))} of their {len(np.unique(part))} speakers are among the {len(np.unique(train))}"
        )

    note = f"published test rows: {shared(test)} of the training rows too; validation rows "
    note += f"as published: {shared(sides[1])}" if validated else "are of speakers that were not trained on"
    apart = max(int(part.max()) for part in sides) + 1
    return np.concatenate([part + place * apart for place, part in enumerate(sides)]), note
