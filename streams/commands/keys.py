"""`ctrainer keys`: who may send training commands."""

from pathlib import Path
from typing import Annotated

import typer

from ctrainer.streams.console import print_rows
from ctrainer.streams.keyring import create_key
from ctrainer.streams.settings import Settings

app = typer.Typer(help="Make the keys that sign training commands.", no_args_is_help=True)


@app.command()
def create(
    key_id: Annotated[str, typer.Argument(help="the name of the key")],
    *,
    tenant: Annotated[list[str], typer.Option(help="a tenant it may act for; * is every tenant")],
    folder: Annotated[Path | None, typer.Option(help="where the private key goes")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Make a private key and add its public half to the keyring that the worker reads."""
    settings = Settings.read()
    keys = folder or settings.state_folder / "keys"
    keyring = settings.requesters or keys / "keyring.json"
    path = create_key(folder=keys, keyring=keyring, key_id=key_id, tenants=tuple(tenant))
    print_rows("key", [{"key": str(path), "CTRAINER_REQUESTERS": str(keyring)}], as_json=json)
