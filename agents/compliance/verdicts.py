"""Policy results, asked for once: remembered here, then in a cache shared with other workers, then decided."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from ctrainer.agents.compliance.policy import PolicyEngine, PolicyError, PolicyInput, PolicyResult

REMEMBERED: Final = 4_096
"""Results kept in this process; about 2 MB."""


class VerdictCache(Protocol):
    """Policy results of other workers. It may forget at any time and must never answer for another key."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        ...

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep values for a while."""
        ...


class Verdicts:
    """Decides each distinct input once. A key is a digest of all that its result depends on, so none is ever stale."""

    def __init__(self, engine: PolicyEngine, cache: VerdictCache | None = None) -> None:
        self._engine = engine
        self._cache = cache
        self._known: dict[str, PolicyResult] = {}

    async def of(self, inputs: Mapping[str, PolicyInput]) -> dict[str, PolicyResult]:
        """Return the result of each key.

        Raises:
            PolicyError: an input has no decision. That is never remembered.
        """
        results = {key: self._known[key] for key in inputs if key in self._known}
        results |= await self._shared([key for key in inputs if key not in results])
        results |= await self._decided({key: value for key, value in inputs.items() if key not in results})
        self._remember(results)
        return results

    async def _shared(self, keys: Sequence[str]) -> dict[str, PolicyResult]:
        if self._cache is None or not keys:
            return {}
        values = await self._cache.get_many(keys)
        read = {key: _read(value) for key, value in zip(keys, values, strict=True)}
        return {key: result for key, result in read.items() if result is not None}

    async def _decided(self, inputs: Mapping[str, PolicyInput]) -> dict[str, PolicyResult]:
        if not inputs:
            return {}
        results = dict(zip(inputs, self._engine.evaluate(list(inputs.values())), strict=True))
        if self._cache is not None:
            await self._cache.put_many({key: result.to_json() for key, result in results.items()})
        return results

    def _remember(self, results: Mapping[str, PolicyResult]) -> None:
        self._known.update(results)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def _read(value: bytes | None) -> PolicyResult | None:
    """Return a cached result; what cannot be read counts as absent."""
    try:
        return PolicyResult.from_policy(value) if value is not None else None
    except PolicyError:
        return None
