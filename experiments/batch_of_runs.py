"""Many runs at once, one thread each, over the cores of this machine; runs that are done are not done again."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from inmaterio.devices.validation import InputError, check_range
from inmaterio.experiments.configuration import RunConfig
from inmaterio.experiments.run_hash import config_hash

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
"""Environment of the worker processes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run is, or why it failed.

    Attributes
    ----------
    folder : Path or None
    problem : str
        Empty when it is done.
    """

    folder: Path | None
    problem: str = ""

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
        In the order of `configs`; a run that cannot be done does not stop the others.

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

    def finished(name: str, outcome: Outcome) -> None:
        outcomes[name] = outcome
        if progress is not None:
            progress(len(outcomes), len(unique))

    if jobs == 1:
        for name, config in unique.items():
            finished(name, _run_one(name, config, out_root)[1])
    else:
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)  # read by the workers when they start
        try:
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
            calls = (joblib.delayed(_run_in_worker)(name, config, out_root) for name, config in unique.items())
            with _deaf_children():
                found = parallel(calls)
            for name, outcome in found:
                finished(name, outcome)
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
    return [outcomes[name] for name in names]


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


def _run_in_worker(name: str, config: RunConfig, out_root: Path) -> tuple[str, Outcome]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    return _run_one(name, config, out_root)


def _run_one(name: str, config: RunConfig, out_root: Path) -> tuple[str, Outcome]:
    from inmaterio.experiments.run import run

    try:
        if config_hash(config) != name:  # this process read other sources than the one that counts on it
            raise InputError("the package's sources changed while runs were under way; start the command again")
        return name, Outcome(run(config, out_root))
    except InputError as error:
        return name, Outcome(None, str(error))
