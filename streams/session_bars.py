"""Progress bars of all training sessions on a terminal, as their events come."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ctrainer.schemas.privacy import PrivacyGuarantee
from ctrainer.schemas.training import FINAL_STATES, SessionAdvanced, SessionProgressed

_SHORT = 8


class SessionBars:
    """One bar for each session: tenant, state, steps, speed, time left, and epsilon spent by its budget scope."""

    def __init__(self, console: Console) -> None:
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description} {task.fields[state]:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]} {task.fields[spent]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def show(self, news: SessionAdvanced | SessionProgressed) -> None:
        """Move the bar of a session."""
        if news.session_id not in self._bars:
            label = f"{news.tenant} {news.session_id[:_SHORT]}"
            bar = self._progress.add_task(label, total=news.steps, state="", pace="", spent="")
            self._bars[news.session_id] = bar
        fields = {"spent": f"epsilon {news.spent.epsilon:.3f}"} if isinstance(news.spent, PrivacyGuarantee) else {}
        if isinstance(news, SessionAdvanced):
            fields["state"] = news.state.value
            if news.state in FINAL_STATES:
                fields["pace"] = news.reason or ""
        else:
            fields["pace"] = f"{news.steps_per_second:.2f} steps/s, {_clock(news.seconds_left)} left"
        self._progress.update(self._bars[news.session_id], completed=news.step, total=news.steps, **fields)  # type: ignore[arg-type] # the fields are texts


def _clock(seconds: float) -> str:
    """Return a time as h:mm:ss.

    >>> _clock(3_725.4)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
