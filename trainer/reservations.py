"""Reservations of privacy budget: the next block is asked for while the present one runs, so that nobody waits."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ctrainer.schemas.privacy import BudgetGranted, BudgetRefused, NonPrivateDeclared
from ctrainer.trainer.errors import CheckpointNotSavedError
from ctrainer.trainer.ledger import Granted, Refused

Answer = Granted | Refused | BudgetGranted | BudgetRefused | NonPrivateDeclared
Reserve = Callable[[int, int], Answer]
"""Ask the ledger for a block: `(first_step, steps)`. It must not return a grant before the charge is durable.

For training without privacy it returns the ledger's entry that says so.
"""

_MARGIN = 2.0


class Reservations:
    """Asks the ledger for blocks of steps, at most one of them ahead, on a thread of its own.

    A block is charged when it is granted, so one that was asked for ahead and never runs stays charged. It is therefore
    asked for as late as its answer can be expected in time: a crash before that forfeits the running block alone.
    """

    def __init__(self, reserve: Reserve, *, ensure_room: Callable[[], None]) -> None:
        self._reserve = reserve
        self._ensure_room = ensure_room
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reservation")
        self._ahead: Future[Answer] | None = None
        self._waited = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: the answer that nobody took is waited for, so that it is known; but not where something went wrong."""
        self._thread.shutdown(wait=kind is None)

    def take(self, first_step: int, steps: int) -> Answer:
        """Return the answer about the block that comes next: the one to what was asked ahead, if anything was.

        Raises:
            CheckpointNotSavedError: there is no room for what the block would bring; nothing was asked.
        """
        if self._ahead is None:
            # Room comes first: a block whose result cannot be saved would be spent for nothing.
            self._ensure_room()
            self._ahead = self._thread.submit(self._timed, first_step, steps)
        asked, self._ahead = self._ahead, None
        return asked.result()

    def ask_ahead(self, first_step: int, steps: int, *, seconds_left: float) -> None:
        """Ask for the next block, unless there will be a better moment: the next one has `seconds_left` to the end."""
        if self._ahead is not None or seconds_left > _MARGIN * self._waited:
            return
        try:
            self._ensure_room()
        except CheckpointNotSavedError:
            # Told when the present block is done: it may be saved yet.
            return
        self._ahead = self._thread.submit(self._timed, first_step, steps)

    def _timed(self, first_step: int, steps: int) -> Answer:
        """Reserve, and remember how long that took."""
        began = time.monotonic()
        answer = self._reserve(first_step, steps)
        # The newest counts: the first one opens a connection, which the others find open.
        self._waited = time.monotonic() - began
        return answer
