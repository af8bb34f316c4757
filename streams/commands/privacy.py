"""`ctrainer privacy`: try to refute the privacy claim of this installation."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams.console import print_rows

app = typer.Typer(help="Try to refute what the trainer claims about privacy.", no_args_is_help=True)


class PrivacyRefutedError(ConstitutionalTrainerError):
    """The audit found more leakage than was claimed: there is a bug."""


@app.callback()
def _privacy() -> None:
    """Keep `audit` a command of its own name."""


@app.command()
def audit(
    *,
    noise: Annotated[float, typer.Option(min=0.1, max=100, help="noise multiplier to audit")] = 4.0,
    json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Run canaries through one step of a tiny random model: a lower bound beside the claimed epsilon.

    A bound above the claim is a bug. A bound below it proves nothing.
    """
    from ctrainer.trainer.canary_trial import audit_tiny_model  # noqa: PLC0415 - pulls torch: seconds

    with tempfile.TemporaryDirectory() as folder:
        found = audit_tiny_model(Path(folder), noise_multiplier=noise)
    row = {
        "epsilon_claimed": round(found.claimed, 4),
        "epsilon_at_least": round(max(found.one_run, found.gaussian), 4),
        "one_run": round(found.one_run, 4),
        "gaussian": round(found.gaussian, 4),
        "delta": found.delta,
        "sensitivity_in_clip_norms": round(found.sensitivity, 6),
        "canaries": found.canaries,
        "refuted": not found.passed,
    }
    print_rows("privacy audit", [row], as_json=json)
    if not found.passed:
        raise PrivacyRefutedError("the audit refutes the claimed epsilon: do not train with this installation")
