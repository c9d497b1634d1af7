"""What looks like a folder and is not there is refused before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadkit.core.errors import InputError
from loadkit.core.tokenizer import check_folder, load_tokenizer


@pytest.mark.parametrize("name", ["./nil", "/no/nil", "../nil", "~/nil", "a/b/c", "nil/", "a\\b"])
def test_a_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_tokenizer(name)


@pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name-1.5"])
def test_a_hub_name_is_left_to_the_hub(name: str) -> None:
    check_folder(name)


def test_a_folder_that_is_there_is_none_to_refuse(tmp_path: Path) -> None:
    check_folder(tmp_path)
