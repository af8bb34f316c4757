"""One Open Policy Agent as a local process, with a policy bundle as its files."""

import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ctrainer.agents.compliance.policy import PolicyBundle
from ctrainer.schemas.identity import canonical_bytes
from ctrainer.streams.embedded.ports import remembered_port
from ctrainer.streams.embedded.process import DetachedProcess

_READY_SECONDS = 15.0
_COLLECT_SELDOM = ("env", "GOGC=off", "GOMEMLIMIT=256MiB")
"""OPA holds little and makes much garbage, and answers late while it collects it: so only when there is a lot of it."""
_BUILT = Path(__file__).parents[2] / ".opa" / "bin" / "opa"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaServer:
    """The OPA whose files and log are in `folder`."""

    folder: Path
    executable: str

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port_file.read_text()}"

    @property
    def process(self) -> DetachedProcess:
        """The process of the server."""
        return DetachedProcess(name="opa", folder=self.folder)

    def start(self, bundle: PolicyBundle) -> str:
        """Start OPA with a bundle, wait until it answers, and return its URL.

        Raises:
            ServiceError: it does not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        policy, data = self.folder / "decision.rego", self.folder / "data.json"
        policy.write_text(bundle.rego)
        data.write_bytes(canonical_bytes(bundle.documents()))
        address = f"127.0.0.1:{remembered_port(self._port_file)}"
        command = [
            *_COLLECT_SELDOM,
            self.executable,
            "run",
            "--server",
            "--addr",
            address,
            "--log-level",
            "error",
            "--disable-telemetry",
        ]
        self.process.start([*command, str(policy), str(data)], ready=self._ready, within_seconds=_READY_SECONDS)
        return self.url

    def stop(self) -> None:
        """End OPA gently."""
        self.process.stop()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as response:  # noqa: S310 - loopback over http
                return bool(response.status == 200)  # noqa: PLR2004 - OK
        except (urllib.error.URLError, OSError):
            return False

    @property
    def _port_file(self) -> Path:
        return self.folder / "opa.port"


def executable() -> str | None:
    """Return the path of an OPA: that of PATH, else the one that `make opa` built; None where there is none."""
    return shutil.which("opa") or (str(_BUILT) if _BUILT.exists() else None)
