"""What a workload is served with after a command: a pure decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctrainer.agents.commands import Refusal
from ctrainer.schemas.adapters import AdapterPublished, AdapterReleased, Canary, ReleaseChange
from ctrainer.schemas.training import CanaryAdapter, PromoteAdapter, RegistryCommand, RollbackAdapter

_REMEMBERED = 100
"""How many former adapters and answered requests are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """What the registry knows of one tenant: its adapters by id, and the releases of its workloads."""

    adapters: Mapping[str, AdapterPublished]
    releases: Mapping[str, AdapterReleased]

    def after(self, command: RegistryCommand, *, signed_by: str) -> AdapterReleased | Refusal:
        """Return the release that a command brings about, or why it brings about none."""
        release = self.releases.get(command.workload) or _unreleased(command)
        if command.request_id in release.answered:
            return Refusal(
                reason="duplicate-request",
                message="this request id was answered before",
                acceptable="a new request id",
            )
        if isinstance(command, RollbackAdapter):
            changes = _rolled_back(release)
        else:
            changes = self._objection(command) or _served(release, command)
        if isinstance(changes, Refusal):
            return changes
        answered = (*release.answered, command.request_id)[-_REMEMBERED:]
        return release.model_copy(update={**changes, "answered": answered, "signed_by": signed_by})

    def _objection(self, command: PromoteAdapter | CanaryAdapter) -> Refusal | None:
        """Return why an adapter may not serve a workload, whatever serves it now."""
        adapter = self.adapters.get(command.adapter_id)
        if adapter is None:
            message = f"tenant {command.tenant!r} has no published adapter of this id"
            acceptable = "an adapter_id of `ctrainer adapters list`; a rejected adapter is never published"
            return Refusal(reason="unknown-adapter", message=message, acceptable=acceptable)
        if not adapter.release.passed:
            message = f"the release gate refused the adapter: {', '.join(adapter.release.reasons)}"
            return Refusal(reason="gate-not-passed", message=message, acceptable="an adapter that passed the gate")
        if command.workload not in adapter.workloads:
            message = f"the adapter was not trained for workload {command.workload!r}"
            return Refusal(reason="foreign-workload", message=message, acceptable=", ".join(adapter.workloads))
        return None


def _unreleased(command: RegistryCommand) -> AdapterReleased:
    return AdapterReleased(
        tenant=command.tenant,
        workload=command.workload,
        change=ReleaseChange.ROLLED_BACK,
        current=None,
        canary=None,
        former=(),
        answered=(),
        signed_by="",
    )


def _served(release: AdapterReleased, command: PromoteAdapter | CanaryAdapter) -> dict[str, Any] | Refusal:
    if release.current == command.adapter_id:
        message = f"the adapter is the current one of workload {command.workload!r} already"
        return Refusal(reason="already-current", message=message, acceptable="another adapter")
    if isinstance(command, CanaryAdapter):
        canary = Canary(adapter_id=command.adapter_id, share=command.share)
        return {"change": ReleaseChange.CANARY_STARTED, "canary": canary}
    former = release.former if release.current is None else (*release.former, release.current)
    return {
        "change": ReleaseChange.PROMOTED,
        "current": command.adapter_id,
        "canary": None,
        "former": former[-_REMEMBERED:],
    }


def _rolled_back(release: AdapterReleased) -> dict[str, Any] | Refusal:
    if release.canary is not None:
        return {"change": ReleaseChange.CANARY_ENDED, "canary": None}
    if release.current is None:
        message = f"workload {release.workload!r} is served by the base model already"
        return Refusal(reason="nothing-to-roll-back", message=message, acceptable="a workload with an adapter")
    current = release.former[-1] if release.former else None
    return {"change": ReleaseChange.ROLLED_BACK, "current": current, "former": release.former[:-1]}
