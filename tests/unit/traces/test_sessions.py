"""Sessions by containment: who continues whom."""

from __future__ import annotations

import numpy as np

from loadkit.core.trace import UNKNOWN
from loadkit.traces.sessions import dense_sessions, infer_sessions


def inferred(*chains: list[int], full: list[int] | None = None) -> list[int]:
    """Sessions of chains; `full` gives the full blocks of each, all of them unless given."""
    counts = [len(chain) for chain in chains]
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ids = np.array([block for chain in chains for block in chain], np.int64)
    return infer_sessions(ptr, ids, np.array(full or counts, np.int64)).tolist()


def test_a_request_joins_the_session_whose_prompt_it_contains() -> None:
    assert inferred([0, 1], [2], [0, 1, 3], [0, 1, 3, 4]) == [0, 1, 0, 0]


def test_a_request_that_only_shares_a_beginning_stays_apart() -> None:
    assert inferred([0, 1, 2], [0, 1, 3]) == [0, 1]


def test_the_deepest_earlier_prompt_wins() -> None:
    assert inferred([0], [1], [0, 2], [1, 3], [0, 2, 4]) == [0, 1, 0, 1, 0]


def test_forks_and_identical_prompts_join() -> None:
    assert inferred([0, 1], [0, 1], [0, 1, 2], [0, 1, 3]) == [0, 0, 0, 0]


def test_a_partial_last_block_need_not_be_contained() -> None:
    # 2 is the partial tail of the first prompt; the second goes on with a full block in its place.
    assert inferred([0, 1, 2], [0, 1, 3, 4], full=[2, 4]) == [0, 0]


def test_a_tail_with_five_children_is_trunk_and_links_nobody() -> None:
    prompts = [[0, 1], *([0, 1, child] for child in range(2, 7))]
    assert inferred(*prompts) == [0, 1, 2, 3, 4, 5]


def test_a_tail_with_four_children_still_links() -> None:
    prompts = [[0, 1], *([0, 1, child] for child in range(2, 6))]
    assert inferred(*prompts) == [0] * 5


def test_one_child_seen_five_times_is_no_trunk() -> None:
    assert inferred([0], *([0, 1],) * 5) == [0] * 6


def test_prompts_without_a_full_block_stay_alone() -> None:
    assert inferred([], [0], [0], full=[0, 0, 0]) == [0, 1, 2]


def test_names_become_dense_ids_in_order_of_appearance() -> None:
    session, warnings = dense_sessions(np.array([5, 2, 5, 9]))
    assert session.tolist() == [0, 1, 0, 2]
    assert warnings == []


def test_rows_without_a_name_are_their_own_sessions() -> None:
    session, warnings = dense_sessions(np.array([5, UNKNOWN, 5, UNKNOWN]))
    assert session.tolist() == [0, 1, 0, 2]
    assert warnings == ["2 rows have no session id: each counts as its own session"]
