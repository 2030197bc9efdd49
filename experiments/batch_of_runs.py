"""Many runs at once, one thread each, over the cores of this machine; runs that are done are not done again.

A run that another process is doing, as a worker of a command that was killed may for a moment, is waited for: all others come
first, then what that process made of it is used or gone on with.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from inmaterio.devices.validation import InputError, check_range
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.run_directory import HeldByAnotherProcess, is_held, partial_folder
from inmaterio.experiments.run_hash import config_hash
from inmaterio.experiments.training import TrainingFailed

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""Environment of the worker processes."""

POLL_S = 0.5
"""Seconds between two looks at a run that another process holds."""

PARENT_POLL_S = 1.0
"""Seconds between two looks of a worker at whether the process that started it is still there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run is, or why it failed.

    Attributes
    ----------
    folder : Path or None
    problem : str
        Empty when it is done.
    of_training : bool
        Whether that is a failure of training itself, which another rate may not have: see `TrainingFailed`.
    held : bool
        Whether it is only that another process does this run; never of what `run_all` returns.
    """

    folder: Path | None
    problem: str = ""
    of_training: bool = False
    held: bool = False

    def path(self) -> Path:
        """The run's directory.

        Raises
        ------
        InputError
            When the run failed.
        """
        if self.folder is None:
            raise InputError(self.problem)
        return self.folder


def run_all(
    configs: Sequence[RunConfig], out_root: Path, *, jobs: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Outcome]:
    """Do every run; results do not depend on the number of jobs.

    Parameters
    ----------
    configs : sequence of RunConfig
        Equal ones are run once.
    out_root : Path
    jobs : int, optional
        Processes at a time; as many as there are cores when None.
    progress : callable, optional
        Called with the number of runs done and of all.

    Returns
    -------
    list of Outcome
        In the order of `configs`; a run that cannot be done does not stop the others, and one that another process does is
        waited for, with one line on standard error.

    Raises
    ------
    InputError
        When a process was killed, as for want of memory; what is done is kept.
    """
    import joblib

    if jobs is not None:
        check_range("jobs", jobs, low=1)
    names = [config_hash(config) for config in configs]
    unique = dict(zip(names, configs, strict=True))
    jobs = min(joblib.cpu_count() if jobs is None else jobs, max(len(unique), 1))
    outcomes: dict[str, Outcome] = {}
    left, told = unique, False
    while left:
        held: dict[str, RunConfig] = {}
        with contextlib.closing(_run_each(left, out_root, jobs)) as found:
            for name, outcome in found:
                if outcome.held:
                    held[name] = left[name]
                    continue
                outcomes[name] = outcome
                if progress is not None:
                    progress(len(outcomes), len(unique))
        if held and not told:
            held_runs = _these(list(held), out_root)
            print(f"waiting for another process, which is doing the run {held_runs}", file=sys.stderr, flush=True)
            told = True
        left = held
        while left and all(is_held(partial_folder(Path(out_root), name)) for name in left):
            time.sleep(POLL_S)
    return [outcomes[name] for name in names]


def _these(names: Sequence[str], out_root: Path) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{Path(out_root) / names[0]}{more}"


def _run_each(configs: Mapping[str, RunConfig], out_root: Path, jobs: int) -> Generator[tuple[str, Outcome], None, None]:
    """Every run once, as they are done.

    Raises
    ------
    InputError
        As `run_all`.
    """
    if jobs == 1:
        for name, config in configs.items():
            yield _run_one(name, config, out_root)
        return
    import joblib

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)  # read by the workers when they start
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        own = os.getpid()
        calls = (joblib.delayed(_run_in_worker)(name, config, out_root, own) for name, config in configs.items())
        with _deaf_children():
            found = parallel(calls)
        yield from found
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; what is done is kept: try again with fewer --jobs"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that start inside never hear Ctrl-C, which reaches all processes of a terminal: this one ends the others."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start lets the signal through again, so it has to come first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_in_worker(name: str, config: RunConfig, out_root: Path, parent: int) -> tuple[str, Outcome]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    _end_with(parent)
    return _run_one(name, config, out_root)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after its parent has died, however that came: nobody is left who would use what it does.

    What it was doing goes on from its checkpoint. On Windows the number of the parent never changes, and nothing happens.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="end with the parent", daemon=True).start()


def _run_one(name: str, config: RunConfig, out_root: Path) -> tuple[str, Outcome]:
    from inmaterio.experiments.run import run

    try:
        if config_hash(config) != name:  # this process read other sources than the one that counts on it
            raise InputError("the package's sources changed while runs were under way; start the command again")
        return name, Outcome(run(config, out_root))
    except HeldByAnotherProcess as error:
        return name, Outcome(None, str(error), held=True)
    except InputError as error:
        return name, Outcome(None, str(error), of_training=isinstance(error, TrainingFailed))
