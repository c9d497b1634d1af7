"""How two texts differ: where first, and whether only something volatile, blank or hidden changed."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple

# A change that spans more characters than this is an edit, whatever it contains.
_WIDEST_VOLATILE = 20_000
# Characters looked at on either side of a change, so that whole dates and ids are seen.
_MARGIN = 64
EXCERPT_CHARS = 60

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH = rf"(?:{_MONTHS})[a-z]{{0,6}}\.?"
_VOLATILE = re.compile(
    rf"""
    (?P<timestamp>
        \d{{4}}-\d\d-\d\d[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d{{1,9}})?)?\s?(?:Z|UTC|[+-]\d\d:?\d\d)?
      | \b\d{{1,2}}:\d\d(?::\d\d(?:[.,]\d{{1,9}})?)?(?:\s?[AaPp][Mm]\b)?
      | \b1[4-9]\d{{8}}(?:\d{{3}}|\d{{6}}|\d{{9}})?(?:\.\d{{1,9}})?\b        # seconds since 1970 or finer
    )
  | (?P<date>
        \b\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}\b
      | \b\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}\b
      | \b{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{4}}\b)?
      | \b\d{{1,2}}\.?\s{_MONTH}(?:\s\d{{4}}\b)?
      | \b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b
    )
  | (?P<id>
        \b[0-9a-fA-F]{{8}}-(?:[0-9a-fA-F]{{4}}-){{3}}[0-9a-fA-F]{{12}}\b
      | \b(?=[a-zA-Z_-]{{0,64}}\d)[0-9a-fA-F]{{8,128}}\b
      | \b(?=[a-zA-Z_-]{{0,64}}\d)(?=[\d_-]{{0,64}}[a-zA-Z])[0-9A-Za-z_-]{{12,128}}\b
    )
  | (?P<counter> \d{{1,40}}(?:[.,]\d{{1,40}}){{0,6}} )
    """,
    re.VERBOSE,
)
_REASONING = re.compile(
    r"<(think|thinking|reasoning)>.*?</\1>\s*|<\|channel\|>analysis<\|message\|>.*?<\|end\|>",
    re.DOTALL,
)
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_REASONING_KEYS = frozenset({"reasoning_content", "reasoning", "thinking", "reasoning_details"})
_REASONING_TYPES = frozenset({"thinking", "redacted_thinking", "reasoning"})


class Change(NamedTuple):
    """Where two texts differ: from `start` on, and no longer at these many characters from the end."""

    start: int
    tail: int


def change_of(before: str, after: str) -> Change:
    """The shortest stretch that holds every difference of the two texts."""
    start = common_length(before, after)
    return Change(start, common_length(before[start:][::-1], after[start:][::-1]))


def common_length(one: str, other: str) -> int:
    """Leading characters that both texts have, by bisection over slices."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def volatile_kind(before: str, after: str, *, goes_on: bool = False) -> str | None:
    """timestamp, date, id or counter if the texts differ in such words alone, by the first of them.

    goes_on: the later text may continue after the earlier one's end.
    """
    old_lines, new_lines = before.split("\n"), after.split("\n")
    fits = len(new_lines) >= len(old_lines) if goes_on else len(new_lines) == len(old_lines)
    if not fits:
        return None
    pairs = zip(old_lines, new_lines, strict=False)
    changed = [_around_change(old, new, goes_on) for old, new in pairs if old != new]
    old, new = ("\n".join(lines) for lines in zip(*changed, strict=True)) if changed else ("", "")
    if len(old) > _WIDEST_VOLATILE:
        return None
    old_mask, new_mask = _VOLATILE.sub("\0", old), _VOLATILE.sub("\0", new)
    same = new_mask.startswith(old_mask) if goes_on else new_mask == old_mask
    return _first_kind(old, new) if same else None


def _around_change(old: str, new: str, goes_on: bool) -> tuple[str, str]:
    """The changed stretch of a line with a margin on both sides."""
    change = change_of(old, new)
    low, tail = max(0, change.start - _MARGIN), max(0, change.tail - _MARGIN)
    if goes_on:
        return old[low:], new[low : len(old) + _MARGIN]
    return old[low : len(old) - tail], new[low : len(new) - tail]


def _first_kind(old: str, new: str) -> str | None:
    for one, other in zip(_VOLATILE.finditer(old), _VOLATILE.finditer(new), strict=False):
        if one[0] != other[0]:
            return "id" if "id" in (one.lastgroup, other.lastgroup) else one.lastgroup
    return None


def same_but_for_whitespace(before: str, after: str) -> bool:
    """Equal after dropping white space and Unicode normalisation."""
    return _bare(before) == _bare(after)


def role_of(message: Any) -> str | None:
    """A known role, `other`, or None; a log's own word for it may hold anything."""
    role = message.get("role") if isinstance(message, dict) else None
    return role if role is None or role in _ROLES else "other"


def text_of(message: Any) -> str:
    """A message's text: its content, the text parts of it joined; empty if it has none."""
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        texts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def without_reasoning(message: Any) -> Any:
    """The message as a client shows it: no thinking parts, keys or tags, text stripped."""
    if isinstance(message, str):
        return _REASONING.sub("", message).strip()
    if not isinstance(message, dict):
        return message
    shown = {key: value for key, value in message.items() if key not in _REASONING_KEYS}
    content = shown.get("content")
    if isinstance(content, str):
        shown["content"] = without_reasoning(content)
    elif isinstance(content, list):
        shown["content"] = [part for part in content if not _is_reasoning(part)]
    return shown


def has_reasoning(message: Any) -> bool:
    """Whether the message carries reasoning in a tag, a key or a part."""
    if isinstance(message, dict) and any(message.get(key) for key in _REASONING_KEYS):
        return True
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        return any(_is_reasoning(part) for part in content)
    return isinstance(content, str) and _REASONING.search(content) is not None


class Window(NamedTuple):
    """Raw text around a position, and whether there is more on either side."""

    text: str
    cut_before: bool
    cut_after: bool


def window(text: str, at: int) -> Window:
    """The surroundings of a position; cheap, so that every pair can have one."""
    low = max(0, at - EXCERPT_CHARS // 3)
    high = low + 4 * EXCERPT_CHARS
    return Window(text[low:high], low > 0, high < len(text))


def excerpt(window: Window, width: int = EXCERPT_CHARS) -> str:
    """One line of it for people; control and direction characters left out."""
    line = " ".join(window.text.split())
    shown = "".join(char for char in line if unicodedata.category(char)[0] != "C")
    more = window.cut_after or len(shown) > width
    return ("…" if window.cut_before else "") + shown[:width] + ("…" if more else "")


def _is_reasoning(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING_TYPES


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
