"""Which records of a sealed range are trained on: a pure function of the records and of public rules.

The same function runs when a dataset is sealed and when it is trained on, so that both see the same members.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ctrainer.schemas.datasets import SelectionRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the selection may know of a record: digests and groups, never text."""

    content_digest: str
    conversation_id: str
    user_digest: str | None
    first_tool: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Indices of the members in the order of the entries, and what was left out.

    `read` = `duplicates` + `over_user_cap` + train + held-out. Of train, `users` counts the users, and `without_user`
    the records that name none.
    """

    train: tuple[int, ...]
    held_out: tuple[int, ...]
    read: int
    duplicates: int
    over_user_cap: int
    membership_digest: str
    users: int
    without_user: int


def select(entries: Sequence[Entry], rules: SelectionRules) -> Selection:
    """Choose the members of a dataset.

    The first of exact duplicates wins, a user keeps the first `max_records_per_user` records, and the held-out share is
    taken by whole groups (all records that share a user or a conversation), so that nothing leaks across the split.
    """
    unique = _first_of_each(entries)
    capped = _within_user_cap(entries, unique, rules.max_records_per_user)
    groups = _groups(entries, capped)
    held_out_groups = _held_out_groups(entries, groups, rules.held_out_share)
    train = tuple(index for index in capped if groups[index] not in held_out_groups)
    held_out = tuple(index for index in capped if groups[index] in held_out_groups)
    users = [entries[index].user_digest for index in train]
    return Selection(
        train=train,
        held_out=held_out,
        read=len(entries),
        duplicates=len(entries) - len(unique),
        over_user_cap=len(unique) - len(capped),
        membership_digest=merkle_root([entries[index].content_digest.encode() for index in (*train, *held_out)]),
        users=len({user for user in users if user is not None}),
        without_user=users.count(None),
    )


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Return `sha256:<hex>` of the Merkle tree over `leaves` (RFC 6962, section 2.1).

    >>> merkle_root([])
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return "sha256:" + _merkle_hash(leaves).hex()


def _merkle_hash(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _merkle_hash(leaves[:split]) + _merkle_hash(leaves[split:])).digest()


def _first_of_each(entries: Sequence[Entry]) -> list[int]:
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        first.setdefault(entry.content_digest, index)
    return list(first.values())


def _within_user_cap(entries: Sequence[Entry], indices: Iterable[int], cap: int) -> list[int]:
    seen: Counter[str] = Counter()
    kept = []
    for index in indices:
        user = entries[index].user_digest
        if user is None or seen[user] < cap:
            kept.append(index)
        if user is not None:
            seen[user] += 1
    return kept


def _groups(entries: Sequence[Entry], indices: Sequence[int]) -> dict[int, str]:
    """Return each record's group: the smallest name among all users and conversations it is connected with."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for index in indices:
        names = _names(entries[index])
        smallest = min(root(name) for name in names)
        for name in names:
            parent[root(name)] = smallest
    return {index: root(_names(entries[index])[0]) for index in indices}


def _names(entry: Entry) -> list[str]:
    names = [f"conversation {entry.conversation_id}"]
    return names if entry.user_digest is None else [*names, f"user {entry.user_digest}"]


def _held_out_groups(entries: Sequence[Entry], groups: Mapping[int, str], share: float) -> set[str]:
    """Return the groups to hold out: of each stratum (the group's first tool) the given share, by smallest hash.

    With two groups or more, at least one is held out and at least one is kept.
    """
    stratum_of: dict[str, str] = {}
    for index, group in groups.items():
        stratum_of.setdefault(group, entries[index].first_tool or "")
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(stratum_of, key=_hash):
        strata[stratum_of[group]].append(group)
    chosen = {group for members in strata.values() for group in members[: round(share * len(members))]}
    if share > 0 and not chosen and len(stratum_of) > 1:
        chosen = {min(stratum_of, key=_hash)}
    return chosen if len(chosen) < len(stratum_of) else set()


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
