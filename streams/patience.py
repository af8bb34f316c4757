"""Ends things that talk to brokers without waiting for brokers that do not answer."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiokafka.errors import KafkaError

_LOG = logging.getLogger(__name__)


async def end_within(seconds: float, ending: Coroutine[Any, Any, None], *, what: str) -> None:
    """Run an ending for at most some seconds. One that takes longer is cancelled, and not waited for even then."""
    task = asyncio.create_task(ending)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        _LOG.warning("%s: given up after %.0f s", what, seconds)
    elif not task.cancelled() and isinstance(error := task.exception(), KafkaError | OSError):
        _LOG.warning("%s: %s", what, type(error).__name__)
    else:
        task.result()
