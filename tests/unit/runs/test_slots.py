"""In which order a server began requests, from what the client saw."""

from __future__ import annotations

from run_builders import answered

from loadkit.runs.record import Record
from loadkit.runs.slots import order_of_service


def seen(sent_s: float, first_token_s: float | None, completed_s: float = 9.0) -> Record:
    return answered("s", 0, sent_s, first_token_s=first_token_s, completed_s=completed_s)


def test_the_first_token_shows_who_was_served_first() -> None:
    """All sent at once: the last of them was served first."""
    records = [seen(0.0, 3.0), seen(0.0, 2.0), seen(0.0, 1.0)]
    assert order_of_service(records).tolist() == [2, 1, 0]


def test_first_tokens_of_one_step_leave_the_order_of_sending() -> None:
    """The second and third came with one step of the server, 1 ms apart."""
    records = [seen(0.0, 1.0), seen(1.0, 5.001), seen(2.0, 5.0), seen(0.5, 7.0)]
    assert order_of_service(records).tolist() == [0, 1, 2, 3]


def test_an_answer_without_tokens_counts_from_its_end() -> None:
    assert order_of_service([seen(0.0, None, 4.0), seen(1.0, 2.0)]).tolist() == [1, 0]
