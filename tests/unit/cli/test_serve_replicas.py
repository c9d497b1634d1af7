"""What `loadkit serve --replicas` hands to each replica, and what it keeps."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from loadkit.cli import main
from reference_server.router.serve import RouterSettings


def settings_of(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> RouterSettings:
    found: list[RouterSettings] = []
    router: Any = importlib.import_module("reference_server.router.serve")
    monkeypatch.setattr(router, "serve", found.append)
    monkeypatch.setattr("sys.argv", ["loadkit", "serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return found[0]


def test_replicas_get_what_was_given_and_the_router_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOADKIT_API_KEY", raising=False)
    settings = settings_of(
        *("--replicas", "2", "--routing", "sticky", "--port", "0", "--exit-with-parent"),
        *("--append-only", "enforce", "--block-size", "32", "--disk-file", "kv", "--policy", "lfu"),
        *("--drain-seconds", "2"),
        monkeypatch=monkeypatch,
    )
    common = ["--drain-seconds", "2.0", "--block-size", "32", "--policy", "lfu"]
    both = [[*common, "--disk-file", f"kv.{n}"] for n in range(2)]
    assert settings.options == both
    assert settings.drain_s == 2
    assert (settings.routing, settings.append_only, settings.port) == ("sticky", "enforce", 0)
    assert settings.exit_with_parent
    assert not settings.keys.are_set


def test_a_key_in_the_environment_is_the_replicas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches them by the environment, never by an argument."""
    monkeypatch.setenv("LOADKIT_API_KEY", "canary")
    settings = settings_of("--replicas", "2", monkeypatch=monkeypatch)
    assert settings.keys.caller("Bearer canary") is not None
    assert settings.keys.caller("") is None
    assert "canary" not in repr(settings)
    assert settings.options == [[], []]
