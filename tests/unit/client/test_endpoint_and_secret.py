"""URLs and API keys: what is accepted, and that a key never shows."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from loadkit.client.endpoint import Endpoint
from loadkit.client.secret import Secret, read_api_key
from loadkit.core.errors import InputError


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("http://127.0.0.1:8000", ("http", "127.0.0.1", 8000, "")),
        ("http://127.0.0.1:8000/v1", ("http", "127.0.0.1", 8000, "")),
        ("http://host/", ("http", "host", 80, "")),
        ("https://host/openai/v1/", ("https", "host", 443, "/openai")),
        ("http://[::1]:9", ("http", "::1", 9, "")),
    ],
)
def test_urls_with_and_without_v1(url: str, parsed: tuple[str, str, int, str]) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.scheme, endpoint.host, endpoint.port, endpoint.base_path) == parsed


def test_the_host_header_has_brackets_and_a_port_where_needed() -> None:
    assert Endpoint.parse("http://[::1]:9").authority == "[::1]:9"
    assert Endpoint.parse("https://host").authority == "host"


@pytest.mark.parametrize(
    "url",
    ["", "host:80", "ftp://host", "http://", "http://h:x", "http://h/?a=1", "http://u:secret@h"],
)
def test_other_urls_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint.parse(url)
    assert "secret" not in str(caught.value)


def test_a_path_cannot_smuggle_header_lines() -> None:
    assert "\n" not in Endpoint.parse("http://h/a b\u00e9").base_path


def test_a_secret_shows_as_stars_and_is_not_pickled() -> None:
    secret = Secret("sk-canary")
    assert "canary" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "sk-canary"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_file_goes_before_the_environment_and_loadkits_variable_before_openais(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    both = {"LOADKIT_API_KEY": "ours", "OPENAI_API_KEY": "theirs"}
    found = [
        read_api_key(file, both),
        read_api_key(None, both),
        read_api_key(None, {"OPENAI_API_KEY": "theirs"}),
    ]
    assert [key.reveal() for key in found if key] == ["from-file", "ours", "theirs"]
    assert read_api_key(None, {"LOADKIT_API_KEY": " "}) is None


@pytest.mark.parametrize("text", ["", "two\nlines", "caf\u00e9"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(InputError, match="not an API key") as caught:
        read_api_key(file, {})
    assert not text or text not in str(caught.value)


def test_a_missing_key_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the API key"):
        read_api_key(tmp_path / "none", {})
