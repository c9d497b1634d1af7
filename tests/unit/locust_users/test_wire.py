"""Messages between master and workers: sealed with a token, or not listened to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from plans import session

from loadkit.locust_users import wire
from loadkit.locust_users.process import TOKEN_VARIABLE
from loadkit.locust_users.settings import Settings
from loadkit.locust_users.wire import Refused, Wire
from loadkit.runs.context import RunContext

SETTINGS = Settings(url="http://h", model="m", loop="open")
CONTEXT = RunContext(
    profile={},
    url="http://h",
    model="m",
    seed=1,
    started_unix_s=0.0,
    duration_s=0.0,
    processes=1,
    loop="open",
    kind="corpus",
    scheduled=1,
)
SHARE = wire.Share("", 1, SETTINGS, CONTEXT, (session("s", "a"),))


def test_a_share_arrives_as_it_was_sent() -> None:
    sealed = Wire("t").seal(wire.SHARE, "w1", SHARE)
    assert Wire("t").open(wire.SHARE, "w1", sealed, wire.Share) == SHARE


@pytest.mark.parametrize(
    ("kind", "client", "token"),
    [(wire.SHARE, "w1", "other"), (wire.GO, "w1", "t"), (wire.SHARE, "w2", "t")],
)
def test_another_token_kind_or_receiver_is_refused(kind: str, client: str, token: str) -> None:
    sealed = Wire("t").seal(wire.SHARE, "w1", SHARE)
    with pytest.raises(Refused):
        Wire(token).open(kind, client, sealed, wire.Share)


@pytest.mark.parametrize("data", [None, {}, {"sealed": "text"}, {"sealed": b""}, b"raw"])
def test_what_is_not_sealed_is_refused(data: Any) -> None:
    with pytest.raises(Refused):
        Wire("t").open(wire.HELLO, "w1", data, wire.Hello)


def test_a_flipped_bit_anywhere_is_refused() -> None:
    sealed: bytes = Wire("t").seal(wire.GO, "w1", wire.Go("", 0.5))["sealed"]
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Refused):
            Wire("t").open(wire.GO, "w1", {"sealed": bytes(changed)}, wire.Go)


def test_sealed_content_of_another_shape_is_refused() -> None:
    sealed = Wire("t").seal(wire.SHARE, "w1", wire.Hello())
    with pytest.raises(Refused, match="loadkit_share of w1"):
        Wire("t").open(wire.SHARE, "w1", sealed, wire.Share)


def test_without_a_token_each_process_has_a_secret_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    sealed = Wire().seal(wire.HELLO, "w1", wire.Hello())
    with pytest.raises(Refused):
        Wire().open(wire.HELLO, "w1", sealed, wire.Hello)
    monkeypatch.setenv(TOKEN_VARIABLE, "shared")
    sealed = Wire().seal(wire.HELLO, "w1", wire.Hello())
    assert Wire().open(wire.HELLO, "w1", sealed, wire.Hello) == msgspec.convert({}, wire.Hello)
