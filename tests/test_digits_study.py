"""The study on real digits that everything else stands on: minutes, so under `make slow`.

The network is 64-64-10 with sigmoid(4z-2), beta 0.2, 40 free and 15 nudged updates, batches of 20, half-Glorot first
values, rates 0.2 and 0.1 that fall with a cosine over 20 epochs.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from inmaterio.experiments.compare import compare
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import read_scalars
from inmaterio.experiments.tuning import FOLDER

pytestmark = pytest.mark.slow

SEEDS = 2
"""Of the second study, per split."""

STUDY = RunConfig(
    data=DataConfig("digits", split_seed=0),
    substrate=SubstrateConfig("hopfield-ideal", (64,), {"activation": "sigmoid", "output_activation": "sigmoid"}),
    rule=RuleConfig(
        "equilibrium-propagation", {"variant": "centred", "beta": 0.2, "free_steps": 40, "nudged_steps": 15, "loss": "mse"}
    ),
    training=TrainingConfig(
        epochs=20,
        batch_size=20,
        rates=(0.2, 0.1),
        schedule="cosine",
        initialisation="glorot-uniform",
        gain=0.5,
        fit_on="train+validation",
        probe_epochs=(),
    ),
)


def test_centred_equilibrium_propagation_learns_digits(tmp_path: Path) -> None:
    found = [read_scalars(run(replace(STUDY, seed=seed), tmp_path))[1] for seed in range(5)]
    errors = [float(scalars["test_error"]) for scalars in found]
    assert mean(errors) <= 0.025, errors
    assert max(errors) <= 0.035, errors


def test_it_beats_the_frozen_hidden_layer_over_five_other_splits(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "tuned")  # what is missing there is tuned and kept; the package's stay as they are
    found = compare(
        "digits",
        ["hopfield-ideal"],
        ["equilibrium-propagation"],
        out=tmp_path,
        seeds=SEEDS,
        split_seeds=(1, 2, 3, 4, 5),
        jobs=1,
        tuned_folder=tmp_path / "tuned",
    )
    errors = {row["rule"]: row["errors"] for row in found.rows}
    ours, frozen = errors["equilibrium-propagation"], errors["readout-only"]
    assert len(ours) == len(frozen) == 5 * SEEDS
    differences = [one - other for one, other in zip(ours, frozen, strict=True)]
    assert mean(differences) < 0, differences
