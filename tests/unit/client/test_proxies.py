"""Environment proxies are not used, and it is said so."""

from __future__ import annotations

import logging

import pytest

from loadkit.client.control import ControlPlane
from loadkit.client.endpoint import Endpoint, ignored_proxy
from loadkit.core.errors import InputError

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "environment", "named"),
    [
        ("http://gpu:8000", {}, None),
        ("http://gpu:8000", {"http_proxy": "http://p:3128"}, "http_proxy"),
        ("http://gpu:8000", {"https_proxy": "http://p:3128"}, None),
        ("https://gpu", {"HTTPS_PROXY": "http://p:3128"}, "https_proxy"),
        ("https://gpu", {"ALL_PROXY": "socks5://p"}, "all_proxy"),
        ("http://gpu:8000", {"http_proxy": "http://p", "no_proxy": "gpu,localhost"}, None),
        ("http://gpu.inside:8000", {"http_proxy": "http://p", "NO_PROXY": ".inside"}, None),
    ],
)
def test_the_proxy_that_others_would_use_is_named(
    url: str, environment: dict[str, str], named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = ignored_proxy(Endpoint.parse(url))
    assert (said is None) == (named is None)
    assert named is None or (said or "").startswith(f"{named} is set")


def test_the_control_plane_warns_and_goes_direct(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:canary@127.0.0.1:9")
    with (
        caplog.at_level(logging.WARNING),
        ControlPlane(Endpoint.parse("http://127.0.0.1:10")) as plane,
        pytest.raises(InputError, match="http_proxy is set"),
    ):
        plane.list_models()
    assert "http_proxy is set" in caplog.text
    assert "canary" not in caplog.text
