"""What is done in threads of its own: steps that are repeated without being asked, and work that may take long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, final

from service.errors import ServiceError

logger = logging.getLogger(__name__)
T = TypeVar("T")


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """What the work will come to, done in a thread of that name."""
    # Not an executor, whose threads the process would wait for at its end.
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


@final
class Loop:
    """Runs a step again and again, whatever becomes of it, until it is stopped.

    A step that fails is tried again at the next turn; the log has its first failure and its recovery, not each turn's.

    Args:
        name: of the thread, and in the log.
        step: done at each turn.
        every: seconds between the end of a turn and the next.
    """

    def __init__(self, name: str, step: Callable[[], object], *, every: float = 1.0) -> None:
        self.name = name
        self.failure = ""
        """What its last turn failed with; empty: it did not."""
        self.step = step
        """Done at each turn."""
        self._every = every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread; its first turn is at once."""
        self._thread.start()

    def end(self) -> None:
        """Asks it to end after the present turn, without waiting for that."""
        self._ending.set()

    def join(self, seconds: float) -> bool:
        """Waits for the end at most that long; whether it ended. A thread that did not dies with the process."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Its thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self.step()
            except Exception as error:  # the loop outlives any of them; the next turn may go better
                failure = f"{type(error).__name__}: {error}"
                if failure != self.failure:
                    unexpected = error if not isinstance(error, ServiceError) else None
                    logger.warning("%s failed and will try again: %s", self.name, failure, exc_info=unexpected)
                self.failure = failure
            else:
                if self.failure:
                    logger.info("%s works again", self.name)
                self.failure = ""
            self._ending.wait(self._every)
