"""What Ctrl-C does: it ends a command once, whole, and says truly whether anything is kept."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INTERRUPTED = 128 + 2
"""Exit code of what SIGINT ended, as shells have it."""


class Stopped(Exception):
    """What Ctrl-C ended, and what to do next: the line before the command."""


@contextmanager
def stoppable(kept: Callable[[], bool | None]) -> Iterator[None]:
    """Let an interruption say whether something is kept that the same command goes on from.

    Parameters
    ----------
    kept : callable
        Whether something is; None while it is not known yet what the command would go on from.
    """
    try:
        yield
    except KeyboardInterrupt:
        found = kept()
        if found is None:
            raise Stopped("stopped before it had begun; what an earlier start kept stays. Run it again with:") from None
        if found:
            raise Stopped("stopped; what is done is kept. Go on with:") from None
        raise Stopped("stopped before anything was done that could be kept. Begin again with:") from None


@contextmanager
def one_interruption() -> Iterator[None]:
    """The first Ctrl-C stops the command; those that follow it do not stop the stopping."""
    handled = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if not handled:  # as under nohup
        yield
        return
    show = sys.unraisablehook

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    def lost(about: Any) -> None:
        if not issubclass(about.exc_type, KeyboardInterrupt):
            show(about)
            return
        # It came while a destructor ran, where nothing can be raised: again, a moment later.
        signal.signal(signal.SIGINT, interrupt)
        again = threading.Timer(0.02, signal.raise_signal, (signal.SIGINT,))
        again.daemon = True
        again.start()

    before = signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = lost
    try:
        yield
    finally:
        sys.unraisablehook = show
        if signal.getsignal(signal.SIGINT) is interrupt:  # else the process is about to end
            signal.signal(signal.SIGINT, before)
