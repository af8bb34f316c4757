"""The chart: rendered by helm where there is one, and always as its templates stand, with every condition met."""

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from typer.testing import CliRunner

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.streams.cli import app
from ctrainer.streams.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
_BUILT = ROOT / ".helm" / "bin" / "helm"
HELM = shutil.which("helm") or (str(_BUILT) if _BUILT.exists() else None)
needs_helm = pytest.mark.skipif(HELM is None, reason="needs a helm binary: `make helm` builds one")

LEAST = {"kafka": {"bootstrapServers": "kafka:9092"}}
ALL: dict[str, Any] = {
    "kafka": {"bootstrapServers": "kafka:9093", "securityProtocol": "SASL_SSL", "existingSecret": "sasl"},
    "image": {"digest": f"sha256:{'0' * 64}"},
    "redis": {"url": "redis://redis:6379/0", "existingSecret": "cache"},
    "guard": {
        "url": "https://guard:8443",
        "model": "guard",
        "version": "3",
        "ask": "0.2-0.8",
        "existingSecret": "guard",
    },
    "requesters": {"existingSecret": "keyring"},
    "receipts": {"existingSecret": "receipts"},
    "reviser": {"model": "/models/strong"},
    "trainer": {"nodeSelector": {"gpu": "yes"}, "storageClassName": "fast"},
    "extraEnv": [{"name": "CTRAINER_CONSTITUTION_DIGEST", "value": "sha256:" + 64 * "0"}],
}
NODES = ALL | {"trainer": {"nodes": 2, "ranks": 4, "gpus": 4}}
SECOND_LOOK = LEAST | {"guard": {"encoderClaim": "encoder", "ask": "0.2-0.8"}}
GOOD = {"least": LEAST, "all": ALL, "nodes": NODES, "second look": SECOND_LOOK}
BAD: dict[str, dict[str, Any]] = {
    "no brokers": {},
    "empty brokers": {"kafka": {"bootstrapServers": ""}},
    "a misspelt key": LEAST | {"worker": {"replica": 2}},
    "an unknown role": LEAST | {"worker": {"roles": "screening,dreaming"}},
    "too many sessions": LEAST | {"trainer": {"parallelSessions": 6}},
    "a guard without a model": LEAST | {"guard": {"url": "http://guard:8000"}},
    "a guard and an encoder": LEAST | {"guard": {**ALL["guard"], "encoderClaim": "encoder"}},
    "a password in clear": LEAST | {"kafka": {"bootstrapServers": "k:9092", "securityProtocol": "SASL_PLAINTEXT"}},
    "a tag as digest": LEAST | {"image": {"digest": "latest"}},
    "a receipt key outside of its folder": LEAST | {"receipts": {"key": "../key.pem"}},
}

Manifest = dict[str, Any]


def merged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chart's values with others over them, as helm merges them."""
    return {
        name: {**default, **values.get(name, {})} if isinstance(default, dict) else values.get(name, default)
        for name, default in VALUES.items()
    }


def helm(*arguments: str, values: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    assert HELM is not None
    command = [HELM, *arguments, "--values", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(values: Mapping[str, Any], folder: Path) -> list[Manifest]:
    done = helm("template", "release", str(CHART), values=values, folder=folder)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def as_they_stand() -> list[Manifest]:
    """Return the manifests with every condition met; of two branches the latter, and `x` in each hole."""
    chunks = (CHART / "templates" / "_names.tpl").read_text().split("{{- define ")[1:]
    parts = {chunk.split('"')[1]: chunk.partition("-}}\n")[2].rpartition("{{- end }}")[0] for chunk in chunks}

    def included(match: re.Match[str]) -> str:
        return "\n" + textwrap.indent(parts[match[1]], " " * int(match[2]))

    found: list[Manifest] = []
    for template in sorted((CHART / "templates").glob("*.yaml")):
        whole = re.sub(r'\{\{- include "([\w.]+)" [^{}]*nindent (\d+) \}\}', included, template.read_text())
        text = re.sub(r"^\s*\{\{-?[^{}]*\}\}\s*$", "", whole, flags=re.MULTILINE)
        found += yaml.safe_load_all(re.sub(r"\{\{-?[^{}]*\}\}", "x", text))
    return found


@pytest.fixture(params=["as they stand", *(pytest.param(name, marks=needs_helm, id=f"helm-{name}") for name in GOOD)])
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    return rendered(GOOD[request.param], tmp_path) if request.param in GOOD else as_they_stand()


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    yield from (manifest["spec"]["template"] for manifest in manifests if "template" in manifest["spec"])


def containers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for pod in pods(manifests):
        yield from ((pod["spec"], container) for container in pod["spec"]["containers"])


def test_there_is_a_manifest_for_each_part(manifests: list[Manifest]) -> None:
    names = [container["name"] for _, container in containers(manifests)]
    assert sorted(names) == ["reviser", "topics", "trainer", "worker"]


def test_every_file_that_a_container_is_told_of_is_mounted_there(manifests: list[Manifest]) -> None:
    for _, container in containers(manifests):
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        told = [str(variable.get("value", "")) for variable in container.get("env", ())]
        for path in (value for value in told if value.startswith(("/etc/", "/var/"))):
            assert any(Path(path).is_relative_to(mount) for mount in mounts), (container["name"], path)


def test_every_mount_has_a_volume_and_every_volume_a_mount(manifests: list[Manifest]) -> None:
    templates = [
        claim["metadata"]["name"] for one in manifests for claim in one["spec"].get("volumeClaimTemplates", ())
    ]
    for spec, container in containers(manifests):
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert volumes <= mounted <= volumes.union(templates), container["name"]


def test_no_container_may_more_than_it_needs(manifests: list[Manifest]) -> None:
    for spec, container in containers(manifests):
        assert spec["automountServiceAccountToken"] is False
        assert {"requests", "limits"} <= set(container["resources"]) or container["resources"] == "x"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_containers_are_started_with_commands_that_exist(manifests: list[Manifest]) -> None:
    for _, container in containers(manifests):
        command, *options = container["args"]
        words = [command, *(["apply"] if options == ["apply"] else [])]
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}, color=False)
        assert shown.exit_code == 0
        for option in (option.partition("=")[0] for option in options if option.startswith("--")):
            assert option in shown.output, (container["name"], option)


@needs_helm
@pytest.mark.parametrize("name", GOOD)
def test_what_containers_are_told_are_settings_that_can_be_read(name: str, tmp_path: Path) -> None:
    for _, container in containers(rendered(GOOD[name], tmp_path)):
        told = {variable["name"]: variable.get("value", "secret") for variable in container["env"]}
        told.pop("NODE", None)
        known = {f"CTRAINER_{field}".upper() for field in Settings.model_fields} | {
            "KAFKA_BOOTSTRAP_SERVERS",
            "REDIS_URL",
        }
        assert set(told) <= known, container["name"]
        Settings.read(told)


@needs_helm
@pytest.mark.parametrize("name", GOOD)
def test_selectors_find_their_pods_and_every_pod_bears_the_governance_hash(name: str, tmp_path: Path) -> None:
    manifests = rendered(GOOD[name], tmp_path)
    labels = [pod["metadata"]["labels"] for pod in pods(manifests)]
    for manifest in manifests:
        selector = manifest["spec"].get("selector", {})
        selector = selector.get("matchLabels", selector)
        assert not selector or any(selector.items() <= one.items() for one in labels), manifest["metadata"]["name"]
        assert manifest["metadata"]["labels"]["constitutional-hash"] == GOVERNANCE_HASH
    assert all(one.get("constitutional-hash") == GOVERNANCE_HASH for one in labels)


@needs_helm
@pytest.mark.parametrize("name", GOOD)
def test_helm_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    done = helm("lint", "--strict", str(CHART), values=GOOD[name], folder=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", GOOD)
def test_good_values_are_taken(name: str) -> None:
    jsonschema_rs.validate(SCHEMA, merged(GOOD[name]))


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name: str, tmp_path: Path) -> None:
    assert not jsonschema_rs.is_valid(SCHEMA, merged(BAD[name]))
    if HELM is not None:
        assert helm("template", "release", str(CHART), values=BAD[name], folder=tmp_path).returncode != 0


def leaves(groups: Mapping[str, Any]) -> set[str]:
    """Return the paths of values, two names deep at most."""
    pairs = ((name, part if isinstance(part, Mapping) else {"": None}) for name, part in groups.items())
    return {f".{name}.{key}".removesuffix(".") for name, part in pairs for key in part}


def test_every_value_is_described_and_used_and_none_else_is() -> None:
    described = leaves({name: part.get("properties", "") for name, part in SCHEMA["properties"].items()})
    assert described - {".global"} == leaves(VALUES)
    texts = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    used = {".".join(path.split(".")[:3]) for path in re.findall(r"\.Values((?:\.\w+)+)", texts)}
    within = re.search(r"\{\{- with \.Values\.guard \}\}.*?\{\{- end \}\}\n\{\{- if \.Values", texts, re.DOTALL)
    assert within is not None
    used |= {f".guard.{name}" for name in re.findall(r"\{\{-? ?(?:if )?\.(\w+)", within[0]) if name != "Values"}
    assert used - {".guard"} == leaves(VALUES)


def test_blocks_of_templates_end_and_what_they_include_is_defined() -> None:
    texts = {file.name: file.read_text() for file in (CHART / "templates").iterdir()}
    defined = {name for text in texts.values() for name in re.findall(r'define "([\w.]+)"', text)}
    for name, text in texts.items():
        assert set(re.findall(r'include "([\w.]+)"', text)) <= defined, name
        begun = re.findall(r"\{\{-? (?:if|with|range|define)\b", text)
        assert len(begun) == len(re.findall(r"\{\{-? end\b", text)), name
