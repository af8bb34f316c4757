"""Verifies the receipt of an adapter offline: its signature, the adapter's files, and who was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrainer.schemas.errors import ConstitutionalTrainerError, ContractError
from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.membership import Membership, Standing
from ctrainer.schemas.receipt import AdapterReceipt, ReadReceipt, SignedStatement, read_receipt
from ctrainer.schemas.signature import Requester
from ctrainer.trainer.adapter import digest_of_files, file_digests
from ctrainer.trainer.dataset import merkle_root


class ReceiptError(ConstitutionalTrainerError):
    """A receipt, or what is said to belong to it, does not hold. The message says which part and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptVerifier:
    """Verifies against known keys; `unsafe_unsigned` also takes the word of a receipt that nobody signed.

    Whoever may send commands for a tenant has a key that may act for it: `only` is the id of the one key that counts.
    """

    requesters: Mapping[str, Requester]
    unsafe_unsigned: bool = False
    only: str | None = None

    def read(self, path: Path) -> ReadReceipt:
        """Return the receipt in a file once its signature holds.

        Raises:
            ReceiptError: it is no receipt, it is unsigned, its signature does not hold, or it contradicts itself.
        """
        try:
            read = read_receipt(SignedStatement.from_json(path.read_bytes()), self.requesters)
        except (OSError, ContractError) as error:
            raise ReceiptError(f"receipt {path}: {error}") from error
        if read.signer is None and not self.unsafe_unsigned:
            raise ReceiptError(f"receipt {path}: it is unsigned; only with --unsafe-unsigned is its word taken")
        if self.only not in {None, read.signer}:
            raise ReceiptError(f"receipt {path}: signed by {read.signer or 'nobody'}, expected {self.only}")
        if digest_of_files(read.files) != read.receipt.adapter_digest:
            raise ReceiptError(f"receipt {path}: the digest of its files is not that of its adapter")
        return read


def verify_adapter(read: ReadReceipt, folder: Path) -> None:
    """Check that the files of a folder are exactly those of a receipt, and that nothing else is there.

    A link is something else: what it points to may be another thing tomorrow.

    Raises:
        ReceiptError: naming the files that differ, are missing, or are too many.
    """
    strange = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not (path.is_file() or path.is_dir())
    }
    found = file_digests(folder)
    differs = {name for name in found.keys() | read.files.keys() if found.get(name) != read.files.get(name)}
    wrong = sorted(strange | differs)
    if wrong:
        raise ReceiptError(f"adapter {folder}: not as the receipt says: {', '.join(wrong)}")


def standing_of(sample: str, receipt: AdapterReceipt, members: Path) -> Standing:
    """Return what became of a sample, by a list of members that is proven to be the one of the receipt.

    Raises:
        ReceiptError: the list is another one.
    """
    try:
        content = members.read_bytes()
        membership = Membership.from_json(content)
    except (OSError, ContractError) as error:
        raise ReceiptError(f"members {members}: {error}") from error
    leaves = [member.content_digest.encode() for member in (*membership.train, *membership.held_out)]
    named = (receipt.members_digest, receipt.membership_digest, receipt.dataset_id)
    if (content_digest(content), merkle_root(leaves), membership.dataset_id) != named:
        raise ReceiptError(f"members {members}: not the list that the receipt names")
    return membership.standing(sample)
