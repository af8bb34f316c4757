import hashlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.datasets import SelectionRules
from ctrainer.trainer.dataset import Entry, merkle_root, select

ENTRIES = st.lists(
    st.builds(
        Entry,
        content_digest=st.integers(0, 60).map(str),
        conversation_id=st.integers(0, 20).map(str),
        user_digest=st.none() | st.integers(0, 10).map(str),
        first_tool=st.none() | st.sampled_from(["search", "pay"]),
    ),
    max_size=60,
)
RULES = st.builds(SelectionRules, max_records_per_user=st.integers(1, 4), held_out_share=st.floats(0, 0.5))


def entry(number: int, *, user: str | None = None, tool: str | None = None, conversation: str | None = None) -> Entry:
    return Entry(
        content_digest=f"digest {number}",
        conversation_id=conversation or f"conversation {number}",
        user_digest=user,
        first_tool=tool,
    )


@given(ENTRIES, RULES)
def test_every_record_is_counted_exactly_once(entries: list[Entry], rules: SelectionRules) -> None:
    chosen = select(entries, rules)
    counted = chosen.duplicates + chosen.over_user_cap + len(chosen.train) + len(chosen.held_out)
    assert chosen.read == len(entries) == counted
    assert not set(chosen.train) & set(chosen.held_out)


@given(ENTRIES, RULES)
def test_no_user_and_no_conversation_is_on_both_sides(entries: list[Entry], rules: SelectionRules) -> None:
    chosen = select(entries, rules)
    train = [entries[index] for index in chosen.train]
    held_out = [entries[index] for index in chosen.held_out]
    assert not {e.conversation_id for e in train} & {e.conversation_id for e in held_out}
    assert not {e.user_digest for e in train} & {e.user_digest for e in held_out} - {None}


@given(ENTRIES, RULES)
def test_members_are_unique_capped_and_in_order(entries: list[Entry], rules: SelectionRules) -> None:
    chosen = select(entries, rules)
    members = [entries[index] for index in (*chosen.train, *chosen.held_out)]
    assert len({e.content_digest for e in members}) == len(members)
    users = [e.user_digest for e in members if e.user_digest is not None]
    assert all(users.count(user) <= rules.max_records_per_user for user in users)
    assert all(a < b for side in (chosen.train, chosen.held_out) for a, b in pairwise(side))


@given(ENTRIES, RULES)
def test_the_digest_is_over_the_members_train_first(entries: list[Entry], rules: SelectionRules) -> None:
    chosen = select(entries, rules)
    assert chosen == select(entries, rules)
    leaves = [entries[index].content_digest.encode() for index in (*chosen.train, *chosen.held_out)]
    assert chosen.membership_digest == merkle_root(leaves)


def test_the_first_of_exact_duplicates_wins() -> None:
    chosen = select([entry(0), entry(1), entry(0)], SelectionRules(held_out_share=0))
    assert chosen.train == (0, 1)
    assert chosen.duplicates == 1


def test_the_share_is_taken_of_each_stratum() -> None:
    entries = [entry(n, tool="search" if n < 100 else "pay") for n in range(150)]
    held_out = select(entries, SelectionRules(held_out_share=0.1)).held_out
    assert sum(index < 100 for index in held_out) == 10
    assert sum(index >= 100 for index in held_out) == 5


def test_a_user_joins_conversations_and_a_conversation_joins_users() -> None:
    chain = [
        entry(0, user="a", conversation="x"),
        entry(1, user="b", conversation="x"),
        entry(2, user="b", conversation="y"),
        entry(3, conversation="y"),
    ]
    others = [entry(n) for n in range(4, 14)]
    chosen = select([*chain, *others], SelectionRules(held_out_share=0.5))
    sides = [index in chosen.held_out for index in range(4)]
    assert len(set(sides)) == 1
    assert chosen.held_out


def test_the_merkle_root_follows_rfc_6962() -> None:
    def leaf(data: bytes) -> bytes:
        return hashlib.sha256(b"\x00" + data).digest()

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\x01" + left + right).digest()

    expected = node(node(leaf(b"a"), leaf(b"b")), leaf(b"c"))
    assert merkle_root([b"a", b"b", b"c"]) == "sha256:" + expected.hex()
