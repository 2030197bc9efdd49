"""A run that is killed goes on to the same bits.

A driver process imports everything once and forks a child per run, so that a kill -9 is a real one and costs no start.
The children count their own function calls and kill themselves at calls chosen at random: in a rule, in the optimiser,
while a checkpoint is half written, while the results are.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inmaterio.devices.validation import InputError
from inmaterio.experiments.checkpoint import load_tree
from inmaterio.experiments.configuration import DataConfig, RuleConfig, RunConfig, SubstrateConfig, TrainingConfig, to_toml
from inmaterio.experiments.run import run
from inmaterio.experiments.run_directory import partial_folder
from inmaterio.experiments.run_hash import config_hash

KILLS = 6
"""Five at random and one while results are written."""

DRIVER = f"""
import json, os, random, signal, sys
from pathlib import Path
from inmaterio.experiments.configuration import load_config
from inmaterio.experiments.run import run

def child(out, kill_at=None):
    process = os.fork()
    if process == 0:
        calls = 0
        def watch(frame, event, argument):
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        if kill_at is not None:
            sys.setprofile(watch)
        run(config, out)
        sys.setprofile(None)
        out.joinpath("calls").write_text(str(calls))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

said = []
for file in map(Path, sys.argv[1:]):
    config, root = load_config(file), file.parent
    run(config, root / "warm")  # compiled and imported: from here on every child makes the same calls
    assert child(root / "whole", 0) == 0
    total = int((root / "whole" / "calls").read_text())
    points = [random.Random(7).randrange(total // 20, total) for _ in range({KILLS})]
    points[-1] = int(0.97 * total)  # while results are written
    codes, found = [], []
    for place, point in enumerate(points):
        out = root / str(place)
        codes.append(child(out, point))
        found.append([path.name for path in out.glob("[!.]*") if path.name != "calls"])
        codes.append(child(out))
    said.append({{"codes": codes, "found": found}})
print(json.dumps(said))
"""


def imperfect(write_mode: str) -> RunConfig:
    return RunConfig(
        data=DataConfig(train_limit=60, test_limit=20),
        substrate=SubstrateConfig("hopfield-imperfect", (4,)),
        rule=RuleConfig("equilibrium-propagation"),
        training=TrainingConfig(epochs=4, write_mode=write_mode),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks")
def test_killed_at_random_points_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    import numpy as np
    import xarray

    files = []
    for write_mode in ("master copy", "in place"):
        files.append(tmp_path / write_mode / "config.toml")
        files[-1].parent.mkdir()
        files[-1].write_text(to_toml(imperfect(write_mode)))
    command = [sys.executable, "-c", DRIVER, *map(str, files)]
    environment = {**os.environ, "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for file, said in zip(files, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert said["codes"] == [-9, 0] * KILLS, "every child is killed once, and then ends well"
        assert said["found"] == [[]] * KILLS, "nothing that looks finished is left by a kill"
        name = config_hash(imperfect(file.parent.name))
        whole = xarray.load_dataset(file.parent / "whole" / name / "run.nc", engine="h5netcdf")
        for place in range(KILLS):
            folder = file.parent / str(place) / name
            again = xarray.load_dataset(folder / "run.nc", engine="h5netcdf")
            assert whole.identical(again)
            for variable in whole.variables:
                assert whole[variable].values.tobytes() == again[variable].values.tobytes(), variable
            assert sorted(path.name for path in folder.iterdir()) == ["config.toml", "log.txt", "run.nc", "state.npz"]
        assert not np.array_equal(whole["requested_weight_1"], whole["read_back_weight_1"]), "there was noise that could differ"


def small() -> RunConfig:
    return RunConfig(
        data=DataConfig(train_limit=60, test_limit=20),
        substrate=SubstrateConfig("digital-feedforward", (4,)),
        rule=RuleConfig("backpropagation"),
        training=TrainingConfig(epochs=3, optimiser="adam"),
    )


def interrupt_after(epochs: int, out: Path) -> Path:
    """Stop a run as Ctrl-C does; its partial folder."""

    def stop(done: int, _: int) -> None:
        if done == epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(), out, progress=stop)
    return partial_folder(out, config_hash(small()))


def test_an_interrupted_run_goes_on_and_keeps_moments(tmp_path: Path) -> None:
    import xarray

    partial = interrupt_after(2, tmp_path / "again")
    assert load_tree(partial / "checkpoint.npz")["course"]["epoch"] == 2
    seen: list[int] = []
    again = run(small(), tmp_path / "again", progress=lambda done, _: seen.append(done))
    assert seen == [3], "only what was missing is done"
    whole = run(small(), tmp_path / "whole")
    left, right = (xarray.load_dataset(folder / "run.nc", engine="h5netcdf") for folder in (whole, again))
    assert left.identical(right)
    assert "going on after epoch 2" in (again / "log.txt").read_text()


@pytest.mark.parametrize("content", [b"", b"no archive", "half"], ids=["empty", "foreign", "truncated"])
def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path: Path, content: bytes | str) -> None:
    checkpoint = interrupt_after(1, tmp_path) / "checkpoint.npz"
    damaged = checkpoint.read_bytes()[: checkpoint.stat().st_size // 2] if isinstance(content, str) else content
    checkpoint.write_bytes(damaged)
    with pytest.raises(InputError, match=r"checkpoint\.npz is damaged or not a checkpoint"):
        run(small(), tmp_path)
    assert checkpoint.read_bytes() == damaged


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    partial = interrupt_after(1, tmp_path)
    with (partial / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is being run by another process"):
            run(small(), tmp_path)
