"""Corpora: texts of our own, made from a declared grammar and seed, so they carry no one's data.

A corpus is a folder with corpus.yaml (licence, seed, sha256 of a sample, statistics) and
grammar.yaml. The grammar is data, never code. Same seed, same bytes.
"""

from loadkit.corpora.corpus import FORMS, OPENING_CHARS, Corpus, CorpusCard, Statistics, What
from loadkit.corpora.loading import load, names
from loadkit.profiles import data_root

__all__ = [
    "FORMS",
    "OPENING_CHARS",
    "Corpus",
    "CorpusCard",
    "Statistics",
    "What",
    "data_root",
    "load",
    "names",
]
