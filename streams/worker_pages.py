"""What a worker shows over HTTP: is it alive, is it ready, how is each part, and its metrics. Never any sample text."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from mode import Service
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ctrainer.streams.transactional_source import TransactionalSource

PATIENCE_SECONDS = 30.0


class WorkerPages(Service):
    """Serves `/live`, `/ready`, `/health` and `/metrics`."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        sources: Sequence[TransactionalSource],
        registry: CollectorRegistry,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._sources = sources
        self._registry = registry
        self._facts = facts
        self._runner: web.AppRunner | None = None

    async def on_start(self) -> None:
        """Listen."""
        pages = web.Application()
        pages.add_routes(
            [
                web.get("/live", self._live),
                web.get("/ready", self._ready),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(pages, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def on_stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        ready = all(self._components().values())
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def _health(self, _request: web.Request) -> web.Response:
        components = self._components()
        status = 200 if all(components.values()) else 503
        return web.json_response({"ready": status == 200, "stages": components, **self._facts()}, status=status)  # noqa: PLR2004

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _components(self) -> dict[str, bool]:
        now = time.monotonic()
        return {source.stage.name: source.is_serving(now, PATIENCE_SECONDS) for source in self._sources}
