"""What can break a prefix, in words: a title and the remedy for each cause."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """code stands in the JSON; the title completes "the prefix broke because ..."."""

    code: str
    title: str
    remedy: str


VOLATILE_KINDS = {
    "timestamp": "a time",
    "date": "a date",
    "id": "an id",
    "counter": "a number",
}
PLACES = {
    "system_prompt": "the system prompt",
    "tools": "the tool definitions",
    "message": "an earlier message",
    "prompt": "the prompt",
}

_LISTED = (
    Cause(
        "system_prompt_changed",
        "the system prompt changed",
        "Keep one system prompt for a whole session; give what changes in the newest user message.",
    ),
    Cause(
        "tools_reordered",
        "the same tools came in another order",
        "Sort the tools by name before every request.",
    ),
    Cause(
        "tools_key_order",
        "the tool schemas came with their keys in another order",
        "Serialise the tool schemas once, and send the same bytes every time.",
    ),
    Cause(
        "tools_changed",
        "tools were added, removed or edited",
        "Give all tools from the first turn on, and limit the choice with tool_choice instead.",
    ),
    Cause(
        "reasoning_stripped",
        "the client left out the reasoning of an earlier reply",
        "Send replies back with their reasoning, or count on losing each turn's reply once.",
    ),
    Cause(
        "reasoning_stripped_by_template",
        "the chat template left out reasoning that the client sent",
        "Use a template (or its option) that keeps reasoning in the history.",
    ),
    Cause(
        "template_changed",
        "only messages were added, but the chat template rendered the old ones differently",
        "Use a template that never rewrites history: compare its output for n and n + 1 messages.",
    ),
    Cause(
        "messages_dropped",
        "messages were dropped from the front of the history",
        "Drop many messages at once and rarely, not some every turn: each drop recomputes the rest.",
    ),
    Cause(
        "history_compacted",
        "the history was replaced by something shorter, as a summary",
        "Compact seldom, and leave the system prompt and the tools in front of it as they are.",
    ),
    Cause(
        "injected_text_dropped",
        "text added to a user message was left out when it was sent again",
        "Send history exactly as it was sent before: retrieved text and reminders included.",
    ),
    Cause(
        "message_inserted",
        "a message was inserted before the end of the history",
        "Append only: put what is new after everything that was sent before.",
    ),
    Cause(
        "tool_result_edited",
        "an earlier tool result was cleared or edited",
        "Shorten tool results before they are first sent, or clear many at once and rarely.",
    ),
    Cause(
        "tool_call_reformatted",
        "an earlier message came in another JSON form (keys, spaces, escapes)",
        "Store messages as they were received and send the same JSON back.",
    ),
    Cause(
        "whitespace",
        "an earlier text differs in white space or Unicode form only",
        "Do not strip or normalise history: send stored text back unchanged.",
    ),
    Cause(
        "message_edited",
        "an earlier message was edited",
        "Append a correction instead of editing what was sent.",
    ),
    Cause(
        "prompt_edited",
        "the prompt's earlier text was edited",
        "Build the prompt by appending to the string that was sent before.",
    ),
    Cause(
        "rolled_back",
        "the session went back to an earlier turn",
        "Nothing to fix: what is left of the prompt still hits.",
    ),
    Cause(
        "reply_changed",
        "the reply came back edited",
        "Send replies back exactly as they were generated.",
    ),
    Cause(
        "reply_left_out",
        "the reply was not sent back",
        "Nothing to fix if the reply was unwanted; otherwise keep it in the history.",
    ),
    Cause(
        "reply_retokenised",
        "the reply, read back as text, gives other tokens than were generated",
        "Send token ids, or check that the template renders replies as the model writes them.",
    ),
    Cause(
        "seam_retokenised",
        "text was only appended, but the tokens at the seam came out differently",
        "End each turn's text at a special token or a line break.",
    ),
    Cause(
        "other_thread",
        "the request continues an older request of its session",
        "Nothing to fix: give threads (helper agents) session ids of their own to see them apart.",
    ),
    Cause(
        "other_conversation",
        "the session id was used for a new conversation",
        "Nothing to fix: give each conversation a session id of its own.",
    ),
    Cause(
        "start_changed",
        "the prompt changed within its first block",
        "This log has no text: log some sessions with it. Suspect the system prompt and the tools.",
    ),
    Cause(
        "history_changed",
        "the prompt changed after its first block",
        "This log has no text: log some sessions with it to see which message changed.",
    ),
    Cause(
        "reply_lost",
        "the next prompt does not go on with the reply",
        "This log has no text: log some sessions with it to see how replies come back.",
    ),
    Cause(
        "text_not_kept",
        "messages differ that were not kept for a closer look (a large log, or odd JSON)",
        "Analyze a part of the log.",
    ),
)


def _volatile(kind: str, place: str) -> Cause:
    what, where = VOLATILE_KINDS[kind], PLACES[place]
    return Cause(
        f"{kind}_in_{place}",
        f"{what} in {where} changed",
        "Move it to the newest user message, or keep one value for the whole session.",
    )


CAUSES: dict[str, Cause] = {
    cause.code: cause
    for cause in (
        *_LISTED,
        *(_volatile(kind, place) for kind in VOLATILE_KINDS for place in PLACES),
    )
}
