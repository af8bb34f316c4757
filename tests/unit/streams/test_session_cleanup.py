import os
from pathlib import Path

import pytest

from ctrainer.agents.sessions import Session, Sessions
from ctrainer.schemas.identity import event_id
from ctrainer.schemas.training import Desired, SessionAdvanced, SessionState
from ctrainer.streams.session_cleanup import clean
from ctrainer.streams.session_folder import exclusive, session_folder
from ctrainer.streams.settings import Settings
from ctrainer.trainer.abandoned import Retention
from tests.assigned import assignment

NOW = 2_000_000_000.0
YEAR = 365 * 86_400.0


def session(name: str, state: SessionState, desired: Desired = Desired.TRAINED) -> Session:
    newest = SessionAdvanced(session_id=name, tenant="acme", state=state, step=0, steps=8)
    return Session(assignment=assignment(name, desired=desired), newest=newest)


SESSIONS = Sessions(
    {
        "training": session("training", SessionState.TRAINING),
        "paused": session("paused", SessionState.PAUSED, Desired.PAUSED),
        "ended": session("ended", SessionState.COMPLETED),
        "rejected": session("rejected", SessionState.REJECTED),
    }
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_folder=tmp_path / "cache", state_folder=tmp_path / "state")


def make(folder: Path, *, idle: float = YEAR) -> Path:
    """Make a folder with a file in it, and nothing in it has changed for a while."""
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"12345")
    for path in (folder / "file", folder):
        os.utime(path, (NOW - idle, NOW - idle))
    return folder


def removed(settings: Settings, *, dry_run: bool = False) -> dict[Path, int]:
    return {gone.path: gone.bytes for gone in clean(settings, SESSIONS, Retention(), now=NOW, dry_run=dry_run)}


def test_only_folders_of_ended_and_forgotten_sessions_go(settings: Settings) -> None:
    folders = {name: make(session_folder(settings, name)) for name in (*SESSIONS.by_id, "forgotten")}
    assert removed(settings).keys() == {folders[name] for name in ("ended", "rejected", "forgotten")}
    assert {name for name, folder in folders.items() if folder.exists()} == {"training", "paused"}


def test_a_folder_that_changed_lately_stays_whatever_its_session_is(settings: Settings) -> None:
    for name in ("ended", "forgotten"):
        (make(session_folder(settings, name)) / "young").touch()
        os.utime(session_folder(settings, name) / "young", (NOW - 1, NOW - 1))
    assert removed(settings) == {}


def test_a_folder_that_a_process_holds_stays(settings: Settings) -> None:
    folder = make(session_folder(settings, "ended"))
    with exclusive(folder):
        (folder / "lock").touch()
        for path in (folder / "lock", folder):
            os.utime(path, (NOW - YEAR, NOW - YEAR))
        assert removed(settings) == {}
    assert removed(settings).keys() == {folder}


def test_quarantined_adapters_and_half_written_ones_go_and_published_ones_never(settings: Settings) -> None:
    adapters = settings.state_folder / "adapters"
    quarantined = make(adapters / "quarantine" / event_id("sessions/rejected", "adapter"))
    published = make(adapters / event_id("sessions/ended", "adapter") / "0123456789abcdef")
    partial = make(published.parent / ".partial-x")
    growing = make(adapters / event_id("sessions/training", "adapter") / ".partial-x")
    assert removed(settings).keys() == {quarantined, partial}
    assert published.exists()
    assert growing.exists()


def test_a_dry_run_says_what_would_go_and_how_large_it_is_and_touches_nothing(settings: Settings) -> None:
    folder = make(session_folder(settings, "ended"))
    assert removed(settings, dry_run=True) == {folder: 5}
    assert folder.exists()


def test_a_link_is_never_followed(settings: Settings, tmp_path: Path) -> None:
    elsewhere = make(tmp_path / "elsewhere")
    session_folder(settings, "x").parent.mkdir(parents=True)
    session_folder(settings, "ended").symlink_to(elsewhere)
    assert removed(settings) == {}
    assert elsewhere.exists()
