"""Data sets of sounds: recordings in a folder, synthetic vowels, and formants that were measured."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.validation import InputError
from inmaterio.experiments.data_names import options_of, whole_number
from inmaterio.experiments.dataset import Dataset
from inmaterio.experiments.formants import VOWELS, formant_table

log = logging.getLogger(__name__)

SYNTHETIC = "vowels-synthetic"


def load_wav_folder(text: str, cache: Path | None) -> Dataset:
    from inmaterio.experiments.wav_files import read_wav_folder

    folder, _, options = text.partition("?")
    try:
        place = Path(folder).expanduser()
    except RuntimeError as error:
        raise InputError(f"data set wav:{folder}: {error}") from error
    chosen = options_of("wav:FOLDER", options, ("rate", "samples", "classes", "bands"))
    rate, samples = whole_number(chosen, "rate", 10_000), whole_number(chosen, "samples", 1000)
    classes = chosen["classes"].split(",") if "classes" in chosen else None
    found = read_wav_folder(place, rate_hz=rate, samples=samples, classes=classes)
    for note in found.notes:
        log.warning("wav:%s: %s", folder, note)
    return Dataset(
        name=f"wav:{text}",
        task="classification",
        labels=found.labels,
        classes=len(found.class_names),
        target_names=found.class_names,
        groups=found.speakers,
        **_sounds(found.waves, rate, chosen),
        notes=found.notes,
    )


def load_synthetic_vowels(text: str, cache: Path | None) -> Dataset:
    from inmaterio.experiments.speech import DEFAULT_VOWELS, synthetic_vowels

    chosen = options_of(SYNTHETIC, text, ("rate", "samples", "vowels", "repetitions", "bands"))
    rate = whole_number(chosen, "rate", 10_000)
    found = synthetic_vowels(
        vowels=chosen["vowels"].split(",") if "vowels" in chosen else DEFAULT_VOWELS,
        repetitions=whole_number(chosen, "repetitions", 1),
        rate_hz=rate,
        samples=whole_number(chosen, "samples", 1000),
    )
    return Dataset(
        name=f"{SYNTHETIC}?{text}" if text else SYNTHETIC,
        task="classification",
        labels=found.labels,
        classes=len(found.vowels),
        target_names=found.vowels,
        groups=found.speakers,
        **_sounds(found.waves, rate, chosen),
        notes=(
            "semi-synthetic: sounds made by source and filter for made-up speakers, from the means and spreads of the formants "
            "that Peterson and Barney (1952) measured; no recording of a voice",
        ),
    )


def _sounds(waves: NDArray[np.float64], rate: int, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Inputs of a set of sounds: the waveform, or with the option ``bands`` the levels in so many bands."""
    if "bands" not in chosen:
        unit = f"sound pressure of unit energy, samples at {rate} Hz"
        return {"inputs": waves, "feature_unit": unit, "kind": "waveform"}
    from inmaterio.experiments.band_levels import band_levels

    bands = whole_number(chosen, "bands", 40)
    unit = f"level in a band of {rate / 2 / bands:g} Hz, decades of the whole power"
    return {"inputs": band_levels(waves, bands), "feature_unit": unit, "kind": "features"}


def load_peterson_barney(_: str, cache: Path | None) -> Dataset:
    table = formant_table()
    return Dataset(
        name="vowels-peterson-barney",
        inputs=np.log2(table.hertz / 1000.0),
        task="classification",
        labels=table.vowels.copy(),
        classes=len(VOWELS),
        target_names=VOWELS,
        feature_unit="octaves above 1000 Hz: fundamental and first three formants",
        groups=table.speakers.copy(),
        notes=("measured by Peterson and Barney (1952)",),
    )
