"""In which order a server began requests, from what the client saw."""

from __future__ import annotations

from run_builders import answered

from loadkit.analysis.reuse import reuse_of
from loadkit.runs.record import Record
from loadkit.runs.slots import order_of_service, predict_slots
from loadkit.traces import TokenRequest, token_trace


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


def test_with_two_slots_an_overlap_leaves_an_interval_and_none_without() -> None:
    """The second conversation's slot is free again at 2 s, just when the third request is sent: its
    own turn finds 8 tokens in that slot or, if another was quicker, none."""
    sent = [(0.0, [1] * 8), (0.1, [2] * 8), (2.0, [3] * 8), (2.0, [2] * 8 + [4])]
    rows = [
        TokenRequest(prompt, reply=[9], session=row, arrival_s=at, latency_s=1.9)
        for row, (at, prompt) in enumerate(sent)
    ]
    reuse = reuse_of(token_trace(rows, 1), "llamacpp")
    records = [seen(at, at + 1.0, at + 1.9) for at, _ in sent]
    _, likeliest, drawn = predict_slots(reuse, 2, records, draws=20)
    totals = {int(hits.sum()) for hits in [likeliest, *drawn]}
    assert totals == {0, 8}
    apart = [seen(10.0 * row, 10.0 * row + 1, 10.0 * row + 2) for row in range(4)]
    rows = [
        TokenRequest(prompt, reply=[9], session=row, arrival_s=10.0 * row, latency_s=2.0)
        for row, (_, prompt) in enumerate(sent)
    ]
    alone = reuse_of(token_trace(rows, 1), "llamacpp")
    assert predict_slots(alone, 2, apart, draws=20)[2].shape == (0, 4)


def test_an_answer_without_tokens_counts_from_its_end() -> None:
    assert order_of_service([seen(0.0, None, 4.0), seen(1.0, 2.0)]).tolist() == [1, 0]
