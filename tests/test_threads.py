"""Same seed, same bits, whatever number of threads the machine offers."""

import os
import subprocess
import sys

import pytest
import xarray

from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig, to_toml

CHILD = """
import sys
from pathlib import Path
import numpy as np
from inmaterio.experiments.configuration import load_config
from inmaterio.experiments.run import run
if int(sys.argv[2]) > 1:  # wake a second BLAS thread: this machine must really offer it
    np.ones((600, 600)) @ np.ones((600, 600))
for file in sys.argv[3:]:
    run(load_config(Path(file)), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[xarray.Dataset]]:
    """run.nc with one and with two threads, by write mode."""
    folder = tmp_path_factory.mktemp("threads")
    files = []
    for mode in ("master copy", "in place"):
        # wide enough that BLAS would share the work between threads
        config = RunConfig(
            data=DataConfig(train_limit=400, test_limit=100),
            substrate=SubstrateConfig("hopfield-imperfect", (200, 100)),
            rule=RuleConfig("equilibrium-propagation", {"free_steps": 10, "nudged_steps": 4}),
            training=TrainingConfig(epochs=1, batch_size=100, write_mode=mode),
        )
        files.append(folder / f"{mode}.toml")
        files[-1].write_text(to_toml(config))
    found: dict[str, list[xarray.Dataset]] = {"master copy": [], "in place": []}
    for threads in (1, 2):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        out = folder / str(threads)
        command = [sys.executable, "-c", CHILD, str(out), str(threads), *map(str, files)]
        subprocess.run(command, env=environment, check=True, timeout=120)
        for file in out.glob("*/run.nc"):
            dataset = xarray.load_dataset(file, engine="h5netcdf")
            mode = "in place" if 'write_mode = "in place"' in (file.parent / "config.toml").read_text() else "master copy"
            found[mode].append(dataset)
    return found


@pytest.mark.parametrize("mode", ["master copy", "in place"])
def test_a_run_ends_with_the_same_bits_on_one_and_two_threads(results: dict[str, list[xarray.Dataset]], mode: str) -> None:
    one, two = results[mode]
    assert one.identical(two)
    for name in one.variables:
        assert one[name].values.tobytes() == two[name].values.tobytes(), name
