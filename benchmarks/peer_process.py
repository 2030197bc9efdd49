"""References that need an environment of their own: installed once into a cache folder, run as a process that stays.

Some peers pin old versions of what this project uses, so each gets a virtual environment. Its process is started once, with one
thread, and then told over a pipe when to do the job, so that it takes turns with the other contenders; it ends when the pipe
is closed. One line of JSON asks, one answers.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inmaterio.devices.compilation import cache_root

INSTALL_SECONDS = 1800.0

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class AbsentError(Exception):
    """A peer cannot be had on this machine; the message says why, in one line."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Python of the environment with these packages, which is made when it does not exist.

    Raises
    ------
    AbsentError
        When they cannot be installed.
    """
    label = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = cache_root().parent / "benchmark_peers" / f"{name}-{label}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    finished = folder / "finished"
    if not finished.exists():
        print(f"installing {name} into {folder}", file=sys.stderr)
        try:
            venv.create(folder, with_pip=True, clear=True)
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout or "").strip().splitlines()
            raise AbsentError(f"it could not be installed ({said[-1] if said else error})") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AbsentError(f"it could not be installed ({error})") from error
        finished.touch()
    return python


class PeerProcess:
    """A peer's process.

    Parameters
    ----------
    name : str
    requirements : sequence of str
        What pip installs.
    script : Path
        Answers each line of its standard input with a line; see `reference_devito.py`.
    job : dict
        What it is asked to make ready: numbers, strings, and paths of arrays.

    Raises
    ------
    AbsentError
        When it cannot be installed or does not start.
    """

    def __init__(self, name: str, requirements: Sequence[str], script: Path, job: dict[str, Any]) -> None:
        python = environment(name, requirements)
        self._name = name
        # it ends by itself when this process does and the pipe is closed
        self._process = subprocess.Popen(
            [str(python), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": ""},
        )
        try:
            self.ask(do="prepare", **job)
        except RuntimeError as error:
            raise AbsentError(f"it does not start ({error})") from error

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for its answer.

        Raises
        ------
        RuntimeError
            When the peer fails or has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self._name} ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self._name}: {answer['error']}")
        return answer["result"]

    def run(self) -> None:
        """Do the job once."""
        self.ask(do="run")
