"""Layouts by hand: blocks of 16; the template has 3 tokens before a user message's words, 5 from its
end to the reply, 4 from a reply's end to the next user message."""

import numpy as np

from loadkit.synthesize.chat_form import ChatForm
from loadkit.synthesize.layout import Layout, Mark

FORM = ChatForm((), opening=3, closing=5, between=4)


def layout(form: ChatForm = FORM) -> Layout:
    return Layout(form, block_size=16, num_keys=20)


def path(*keys: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(keys)


def test_a_prompt_ends_with_the_templates_closing() -> None:
    placed = layout().place(path(0, 1, 2), prompt=40, reply=0, asked=0)
    assert placed.marks == (Mark(35, True, 0),)
    assert (placed.prompt_tokens, placed.detached) == (40, False)


def test_the_next_turn_repeats_prompt_and_reply_and_goes_on_as_the_user() -> None:
    layouts = layout()
    layouts.place(path(0, 1, 2, 3), prompt=40, reply=10, asked=0)
    placed = layouts.place(path(0, 1, 2, 3, 4), prompt=70, reply=0, asked=0)
    # The reply is tokens 40..49; 4 of the template follow, then words up to 65.
    assert placed.marks == (Mark(35, True, 10), Mark(50, False), Mark(65, True, 0))


def test_a_reply_that_is_not_in_the_log_takes_the_length_that_was_asked_for() -> None:
    layouts = layout()
    layouts.place(path(0, 1, 2), prompt=40, reply=0, asked=12)
    placed = layouts.place(path(0, 1, 2, 3, 4), prompt=70, reply=0, asked=0)
    assert [mark.at for mark in placed.marks] == [35, 52, 65]


def test_whoever_shares_only_earlier_blocks_is_not_bound_by_the_closing() -> None:
    layouts = layout()
    layouts.place(path(0, 1, 2), prompt=40, reply=0, asked=0)
    placed = layouts.place(path(0, 1, 3, 4), prompt=60, reply=0, asked=0)
    assert [mark.at for mark in placed.marks] == [55]


def test_a_prompt_that_would_end_inside_a_block_of_words_leaves_it_and_is_longer() -> None:
    layouts = layout()
    layouts.place(path(0, 1, 2), prompt=48, reply=0, asked=0)  # closing in 43..47: 16..31 are words
    layouts.place(path(0, 1, 3), prompt=48, reply=0, asked=0)
    placed = layouts.place(path(0, 1, 4), prompt=34, reply=0, asked=0)
    # 34 tokens would have the closing in 29..33. It starts behind block 1 instead: 32..36.
    assert placed.detached
    assert (placed.marks, placed.prompt_tokens) == ((Mark(32, True, 0),), 37)


def test_shorter_prompts_decide_when_they_come_first() -> None:
    layouts = layout()
    short = layouts.place(path(0, 1, 4), prompt=34, reply=0, asked=0)
    longer = layouts.place(path(0, 1, 2), prompt=48, reply=0, asked=0)
    assert short.marks == (Mark(29, True, 0),)
    assert [mark.at for mark in longer.marks] == [29, (35 + 38) // 2, 43]


def test_without_append_only_templates_closings_stay_out_of_shared_blocks() -> None:
    layouts = layout(ChatForm((), opening=3, closing=5, between=None))
    fits = layouts.place(path(0, 1, 2), prompt=40, reply=0, asked=0)
    longer = layouts.place(path(0, 1, 3), prompt=34, reply=0, asked=0)
    assert (fits.marks, fits.prompt_tokens) == ((Mark(35, True, 0),), 40)
    assert (longer.marks, longer.prompt_tokens) == ((Mark(32, True, 0),), 37)
