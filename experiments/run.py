"""One run: train, evaluate once, leave a directory that says everything. Killed at any point, it goes on to the same bits.

Every random number comes from a `Key` of the seed and a place (epoch, step), never from a generator that runs along, so
that what is kept after each epoch (what the devices hold, the optimiser, the rule, the ledger) decides all that follows.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.experiments.assembly import Parts, assemble, first_values
from inmaterio.experiments.checkpoint import flatten_record, load_tree, rebuild_record, save_tree
from inmaterio.experiments.configuration import RunConfig, located, to_toml
from inmaterio.experiments.disturbing import check_disturbance
from inmaterio.experiments.memory import show_widths
from inmaterio.experiments.registry import check_settings
from inmaterio.experiments.run_directory import (
    build_dataset,
    check_files,
    check_finished,
    digests,
    fingerprint,
    keep_own_files,
    locked,
    partial_folder,
    read_run,
    write_dataset,
)
from inmaterio.experiments.run_hash import config_hash
from inmaterio.experiments.training import (
    Course,
    begin,
    conclude,
    deploy,
    failing_as_training,
    make_optimiser,
    requested_values,
    train_epoch,
)
from inmaterio.learning_rules.contract import Rule
from inmaterio.simulators.capabilities import Array

__all__ = ["LoadedRun", "deploy", "load_run", "one_thread", "run"]

Progress = Callable[[int, int], None]
"""Called with the epochs done and the epochs in all."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS, numba and torch use one thread inside; afterwards as many as before."""
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads(), torch.get_num_threads()
    with threadpool_limits(limits=1):
        numba.set_num_threads(1)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before[0])
            torch.set_num_threads(before[1])


def run(config: RunConfig, out_root: Path, *, progress: Progress | None = None) -> Path:
    """Do one run, or go on with it, or find it done.

    Parameters
    ----------
    config : RunConfig
    out_root : Path
        The run's directory is made in it, named by `config_hash`.
    progress : callable, optional
        Called after each epoch.

    Returns
    -------
    Path
        The run's directory.

    Raises
    ------
    InputError
        When the configuration cannot be run or does not fit into memory, or a directory in the way is damaged or another run's
        (nothing is overwritten). `TrainingFailed` when training diverges, a settling fails or a nudge runs away (the last
        checkpoint stays). `HeldByAnotherProcess` when another process does this very run.
    """
    out_root = Path(out_root)
    name = config_hash(config)
    folder = out_root / name
    if folder.exists():
        check_finished(folder, name)
        return folder
    # Assembled first: a configuration that cannot be run leaves nothing behind.
    check_settings(config)
    parts = assemble(config)
    check_disturbance(parts)
    try:
        return _train(parts, out_root, name, progress)
    except MemoryError:
        widths = [parts.dataset.features, *config.substrate.hidden, parts.dataset.outputs]
        raise InputError(
            f"not enough memory for {show_widths(widths)} with batches of {config.training.batch_size} rows"
        ) from None


def _train(parts: Parts, out_root: Path, name: str, progress: Progress | None) -> Path:
    """Do a run that stands ready, from its checkpoint on where there is one."""
    folder, partial = out_root / name, partial_folder(out_root, name)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out_root}: {error.strerror}") from None
    with locked(partial):
        if folder.exists():  # another process has done it meanwhile
            shutil.rmtree(partial, ignore_errors=True)
            return folder
        _train_held(parts, partial, name, progress)
        for left in partial.glob(".*"):  # halves of files whose writing was killed
            if left.name != ".lock":
                left.unlink()
        # Renamed while it is held: whoever waits for it finds the run done, never its folder on the move.
        partial.rename(folder)
        (folder / ".lock").unlink(missing_ok=True)
    (folder / "checkpoint.npz").unlink(missing_ok=True)
    return folder


def _train_held(parts: Parts, partial: Path, name: str, progress: Progress | None) -> None:
    """Train in a partial folder that this process holds, until it is whole."""
    config = parts.config
    with one_thread(), _log(partial / "log.txt") as log:
        kept = keep_own_files(config, partial)
        if config_hash(located(kept, partial)) != name:
            raise InputError("a file that the configuration names changed while the run began; start it again")
        began = time.perf_counter()
        course = resume(parts, partial, name, log) or begin(parts)
        waited = course.seconds
        while course.epoch < config.training.epochs:
            with failing_as_training():
                train_epoch(parts, course)
            course.seconds = waited + time.perf_counter() - began
            keep(parts, course, partial, name)
            log.info("epoch %d of %d: %s", course.epoch, config.training.epochs, course.history[-1])
            if progress is not None:
                progress(course.epoch, config.training.epochs)
        _write(parts, course, partial, name, kept)
        log.info("done in %.3f s of wall time", waited + time.perf_counter() - began)


def _write(parts: Parts, course: Course, partial: Path, name: str, kept: RunConfig) -> None:
    """Judge, and write everything but the log; `kept` is the configuration as the directory shall hold it."""
    seed = Key(parts.config.seed)
    with failing_as_training():
        judged = conclude(parts, course)
    scalars = {**judged, "hash": name, "configuration_sha256": fingerprint(kept)}
    scalars["substrate"] = kept.substrate.name
    with parts.ledger.phase("evaluate"):
        read_back = parts.chip.read_back(key=seed.at("read back")) if "ReadBack" in parts.chip.capabilities else {}
    course.ledgers[-1] = parts.ledger.to_records()
    snapshots = {role: substrate.snapshot() for role, substrate in parts.substrates.items()}
    save_tree(partial / "state.npz", {"hash": name, "substrates": snapshots, "rule": flatten_record(course.state)})
    scalars["files_sha256"] = digests(partial)
    dataset = build_dataset(
        course.history,
        course.ledgers,
        course.probes,
        parts.chip.parameters,
        requested_values(parts, course),
        read_back,
        scalars,
    )
    (partial / "config.toml").write_text(to_toml(kept), encoding="utf-8")
    write_dataset(dataset, partial)


@contextlib.contextmanager
def _log(path: Path) -> Iterator[logging.Logger]:
    log = logging.Logger(f"inmaterio.run.{path.parent.name}")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        handler.close()


def keep(parts: Parts, course: Course, partial: Path, name: str) -> None:
    snapshots = {role: substrate.snapshot() for role, substrate in parts.substrates.items()}
    tree = {
        "hash": name,
        "substrates": snapshots,
        "learner": parts.learner.snapshot(),
        "optimiser": {} if course.optimiser is None else course.optimiser.state(),
        "rule": flatten_record(course.state),
        "ledger": parts.ledger.to_records(),
        "course": {key: getattr(course, key) for key in ("epoch", "step", "history", "ledgers", "probes", "seconds", "trained")},
    }
    save_tree(partial / "checkpoint.npz", tree)


def resume(parts: Parts, partial: Path, name: str, log: logging.Logger) -> Course | None:
    """The course a checkpoint holds, with the substrates put back; None where none was kept."""
    path = partial / "checkpoint.npz"
    if not path.exists():
        return None
    tree = load_tree(path)
    try:
        if tree["hash"] != name:
            raise InputError(f"{path} belongs to another configuration; move {partial} away to begin again")
        for role, substrate in parts.substrates.items():
            substrate.restore(tree["substrates"][role])
        parts.learner.restore(tree["learner"])
        optimiser = make_optimiser(parts, first_values(parts.config, parts.learner.parameters))
        if optimiser is not None:
            optimiser.load_state(tree["optimiser"])
        parts.ledger.load_records(tree["ledger"])
        state = rebuild_record(parts.rule.init(Key(parts.config.seed).at("rule")), tree["rule"])
        course = Course(state, optimiser, **tree["course"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}; move {partial} away to begin again") from None
    log.info("going on after epoch %d", course.epoch)
    return course


@dataclass(frozen=True, slots=True, eq=False)
class LoadedRun:
    """A finished run, ready to predict.

    Attributes
    ----------
    config : RunConfig
    parts : Parts
        Data, encodings, the substrates as trained, the rule; its ledger holds only what happens from now on.
    state : object
        The rule's state.
    """

    config: RunConfig
    parts: Parts
    state: Any

    @property
    def substrate(self) -> Any:
        """The trained chip."""
        return self.parts.chip

    @property
    def rule(self) -> Rule:
        """The rule on it."""
        return self.parts.deployed

    def scores(self, inputs: Array, *, key: Key | None = None) -> Array:
        """Outputs (n, outputs), in units of the output port, for raw inputs (n, features); charged as inference."""
        rows = np.arange(len(inputs), dtype=np.int64)
        key = Key(self.config.seed).at("predict") if key is None else key
        with self.parts.ledger.phase("infer"), one_thread():
            return np.asarray(self.rule.predict(self.state, self.parts.encoding.encode(inputs), rows, key))

    def predict(self, inputs: Array, *, key: Key | None = None) -> Array:
        """Class labels (n,), or values (n, outputs) in the data's units, for raw inputs (n, features)."""
        return np.asarray(self.parts.targets.decode(self.scores(inputs, key=key)))


def load_run(folder: Path) -> LoadedRun:
    """A finished run with its substrates as they were at the end.

    Raises
    ------
    InputError
        When the directory is missing, damaged, or its files are not of one run.
    """
    config, dataset = read_run(folder)
    config = located(config, Path(folder))
    check_files(folder, dataset.attrs)
    tree = load_tree(Path(folder) / "state.npz")
    parts = assemble(config)
    try:
        if tree["hash"] != dataset.attrs["hash"]:
            raise InputError(f"{folder} belongs to another configuration: state.npz is not of this run.nc")
        for role, substrate in parts.substrates.items():
            substrate.restore(tree["substrates"][role])
        state = rebuild_record(parts.rule.init(Key(config.seed).at("rule")), tree["rule"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{Path(folder) / 'state.npz'} is damaged: {type(error).__name__} {error}") from None
    return LoadedRun(config, parts, state)
