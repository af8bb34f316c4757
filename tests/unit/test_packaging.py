import json
import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from ctrainer.streams.cli import app

ROOT = Path(__file__).parents[2]
FOLDERS = ("agents", "schemas", "streams", "trainer")


def test_every_package_is_part_of_the_wheel() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "ctrainer." + ".".join(place.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for place in (ROOT / folder).rglob("__init__.py")
    }
    assert set(declared) == found


def test_every_command_in_the_readme_exists() -> None:
    commands = set(re.findall(r"^\$ ctrainer ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_the_chart_takes_every_role_that_a_worker_has() -> None:
    from ctrainer.streams.roles import Role  # noqa: PLC0415 - beside what it is compared with

    schema = json.loads((ROOT / "helm" / "values.schema.json").read_text())
    pattern = schema["properties"]["worker"]["properties"]["roles"]["pattern"]
    assert re.fullmatch(pattern, ",".join(Role))
    apart = [role for role in Role if role is not Role.REVISION]
    assert f"roles: {','.join(apart)}\n" in (ROOT / "helm" / "values.yaml").read_text()
    assert "args: [worker, --roles, revision]" in (ROOT / "helm" / "templates" / "reviser.yaml").read_text()


def test_every_setting_is_documented() -> None:
    from ctrainer.streams.settings import Settings  # noqa: PLC0415 - beside what it is compared with

    page = (ROOT / "docs" / "settings.md").read_text()
    for name in Settings.model_fields:
        key = name.upper() if name in {"kafka_bootstrap_servers", "redis_url"} else f"CTRAINER_{name.upper()}"
        assert key in page or key.removeprefix("CTRAINER_KAFKA_SSL") in page, key
