"""Asks a worker's pages whether it is ready."""

import asyncio

import aiohttp

from ctrainer.schemas.errors import ConstitutionalTrainerError

_PERIOD_SECONDS = 0.2


class NotReadyError(ConstitutionalTrainerError):
    """A worker did not become ready in time."""


async def is_ready(host: str, port: int) -> bool:
    """Return whether the worker at `host:port` says it is ready."""
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{port}/ready") as page,
        ):
            return page.status == 200  # noqa: PLR2004 - HTTP 200 OK
    except (aiohttp.ClientError, TimeoutError):
        return False


async def wait_until_ready(host: str, port: int, *, within_seconds: float = 60.0) -> None:
    """Return as soon as the worker is ready.

    Raises:
        NotReadyError: it was not ready within the time.
    """
    try:
        async with asyncio.timeout(within_seconds):
            while not await is_ready(host, port):  # noqa: ASYNC110 - another process cannot set our event
                await asyncio.sleep(_PERIOD_SECONDS)
    except TimeoutError as error:
        raise NotReadyError(f"the worker at {host}:{port} was not ready within {within_seconds:.0f} s") from error
