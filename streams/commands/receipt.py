"""`ctrainer receipt`: what an adapter was made of, verified without trusting anyone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrainer.schemas.privacy import NoGuarantee, PrivacyGuarantee
from ctrainer.schemas.receipt import AdapterReceipt, ReadReceipt
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.keyring import read_keyring
from ctrainer.streams.receipt_verification import ReceiptVerifier, standing_of, verify_adapter
from ctrainer.streams.settings import Settings

app = typer.Typer(help="Verify what an adapter was made of.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Keep `verify` a command of its own."""


@app.command()
def verify(
    receipt: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="the receipt of an adapter")],
    *,
    adapter: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="the adapter's folder")] = None,
    keys: Annotated[Path | None, typer.Option(dir_okay=False, help="a keyring; else that of the settings")] = None,
    signer: Annotated[
        str | None, typer.Option(help="the one key whose word is taken; else any of the tenant's")
    ] = None,
    sample: Annotated[str | None, typer.Option(help="a sample id or content digest: was it trained on?")] = None,
    members: Annotated[
        Path | None, typer.Option(dir_okay=False, help="the list of members; else the one beside the receipt")
    ] = None,
    unsafe_unsigned: Annotated[bool, typer.Option("--unsafe-unsigned", help="also take an unsigned receipt")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Verify a receipt offline: its signature, the adapter's files, and whether a sample was trained on."""
    keyring = keys or Settings.read().requesters
    known = read_keyring(keyring) if keyring else {}
    verifier = ReceiptVerifier(requesters=known, unsafe_unsigned=unsafe_unsigned, only=signer)
    read = verifier.read(receipt)
    if adapter is not None:
        verify_adapter(read, adapter)
    answer = _facts(read) | {"adapter": "as the receipt says" if adapter else "not checked: name it with --adapter"}
    if sample is not None:
        answer["sample"] = standing_of(sample, read.receipt, members or _beside(receipt)).value
    if json:
        print_json(answer)
    else:
        print_rows("receipt", [{"what": name, "is": value} for name, value in answer.items()], as_json=False)


def _beside(receipt: Path) -> Path:
    return receipt.with_name(receipt.name.replace(".receipt.json", ".members.json"))


def _facts(read: ReadReceipt) -> dict[str, Any]:
    receipt = read.receipt
    return {
        "signed_by": read.signer or "nobody",
        "adapter_id": receipt.adapter_id,
        "digest": receipt.adapter_digest,
        "tenant": receipt.tenant,
        "base_model": receipt.base_model,
        "dataset_id": receipt.dataset_id,
        "constitution": f"{receipt.constitution.hash} {receipt.constitution.digest}",
        "policy_revision": receipt.policy_revision,
        "code_version": receipt.code_version,
        **_promise(receipt.guarantee),
        "unsafe": list(_weakened(receipt)),
        "gate": "passed" if receipt.release.passed else f"refused: {', '.join(receipt.release.reasons)}",
    }


def _promise(promised: PrivacyGuarantee | NoGuarantee) -> dict[str, Any]:
    if isinstance(promised, NoGuarantee):
        return {"guarantee": promised.guarantee}
    return {
        "epsilon": promised.epsilon,
        "delta": promised.delta,
        "unit": promised.unit.value,
        "adjacency": promised.adjacency.value,
        "accountant": promised.accountant.value,
    }


def _weakened(receipt: AdapterReceipt) -> Iterator[str]:
    """Yield what makes an adapter worth less than its receipt looks."""
    if isinstance(receipt.guarantee, NoGuarantee):
        yield "trained without privacy"
    else:
        if receipt.guarantee.unsafe_seeded_noise:
            yield "seeded noise"
        if receipt.guarantee.unsafe_non_private:
            yield "records of the scope were also trained on without privacy"
    if receipt.unsafe_unsigned_request:
        yield "unsigned request"
