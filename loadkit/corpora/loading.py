"""Corpora by name or folder: corpus.yaml (licence, seed, sha256 of a sample) and grammar.yaml."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from loadkit.core.errors import InputError
from loadkit.corpora.corpus import Corpus, CorpusCard
from loadkit.corpora.grammar import checked_lines
from loadkit.profiles import data_root, load_yaml

# Every corpus can hold a conversation; tools, documents and batches are extra.
REQUIRED_SYMBOLS = (
    "system",
    "system_rule",
    "message_open",
    "sentence",
    "question",
    "faq",
    "reply",
)


def names() -> list[str]:
    """Names of the bundled corpora."""
    return sorted(path.parent.name for path in data_root("corpora").glob("*/corpus.yaml"))


def load(name_or_path: str) -> Corpus:
    """Load a corpus by bundled name or folder. InputError if it is missing or does not fit.

    A name is a name: `../x` is looked for from the working folder only, never from the bundled
    corpora. A corpus that came with someone's profile must not read what lies elsewhere, so its
    folder and files may not be links.
    """
    folders = [Path(name_or_path)]
    if name_or_path in names():
        folders.append(data_root("corpora") / name_or_path)
    for folder in folders:
        if (folder / "corpus.yaml").is_file():
            _check_no_links(folder)
            return _load(folder, _changed_at(folder / "grammar.yaml"))
    raise InputError(
        "no such corpus",
        where=name_or_path,
        remedy=f"one of: {', '.join(names())}, or a folder",
    )


def _check_no_links(folder: Path) -> None:
    for path in (folder, folder / "corpus.yaml", folder / "grammar.yaml"):
        if path.is_symlink():
            raise InputError(
                "a corpus may not be or hold a symbolic link",
                where=path,
                remedy="give the folder itself, with files of its own",
            )


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=16)
def _load(folder: Path, changed_at: int) -> Corpus:
    """Parsing takes 0.2 s, and a mixture's parts use one corpus; a changed file is read again."""
    try:
        card = CorpusCard.model_validate(load_yaml(folder / "corpus.yaml"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{key}: {first['msg']}", where=folder / "corpus.yaml") from error
    path = folder / "grammar.yaml"
    return Corpus(card, checked_lines(load_yaml(path), path, REQUIRED_SYMBOLS, card.languages))
