"""Local rules on a spiking chip learn more than a readout of what it does untrained."""

from pathlib import Path

import numpy as np
import pytest

from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import read_run


def yin_yang_error(rule: str, trained: str, seed: int, folder: Path) -> float:
    """Fraction of 500 test points that are told wrong after 20 epochs on 2000; three classes."""
    config = RunConfig(
        data=DataConfig("yin-yang?rows=3000&steps=30&bias=1", train_limit=2000, test_limit=500),
        substrate=SubstrateConfig(
            "spiking-ideal", hidden=(64,), options={"max_delay": 10, "tail_steps": 10, "readout": "mean-membrane"}
        ),
        rule=RuleConfig(rule, {}),
        training=TrainingConfig(
            epochs=20, batch_size=32, schedule="cosine", optimiser="adam", probe_epochs=(), trained=trained, gain=6.0
        ),
        seed=seed,
    )
    return float(read_run(run(config, folder))[1].attrs["test_error"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_yin_yang_is_learnt_below_the_readout(seed: int, tmp_path: Path) -> None:
    """Seen on the three seeds: readout alone 0.14, 0.27, 0.17; e-prop 0.07, 0.07, 0.09; SLTT 0.05, 0.06, 0.10; delays too 0.08,
    0.04, 0.05. Hidden neurons with delays of their own, drawn at random, are good features already."""
    rules = ("e-prop", "spatial-learning-through-time", "three-factor-delay-learning")
    readout = yin_yang_error("e-prop", "readout", seed, tmp_path / "readout")
    errors = {rule: yin_yang_error(rule, "all", seed, tmp_path / rule) for rule in rules}
    assert readout < 0.4  # chance is 0.67
    assert all(error < readout - 0.03 for error in errors.values()), (readout, errors)
    assert np.mean(list(errors.values())) < 0.1
