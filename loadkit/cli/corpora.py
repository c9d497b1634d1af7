"""`loadkit corpora`: list, show or validate the texts that traffic is made of."""

from __future__ import annotations

from typing import Annotated

import typer


def corpora(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="bundled name or folder: validate it")
    ] = None,
    samples: Annotated[int, typer.Option(help="how many sample messages to show")] = 3,
) -> None:
    """List the bundled corpora, or validate one and show samples of it."""
    from random import Random

    from loadkit import corpora as library
    from loadkit.core.errors import InputError

    if name is None:
        for each in library.names():
            card = library.load(each).card
            print(f"{card.name:<20} {card.licence:<12} {card.summary}")
        return
    corpus = library.load(name)
    if (found := corpus.sample_sha256()) != corpus.card.sample_sha256:
        raise InputError(
            f"the sample's sha256 is {found}, corpus.yaml says {corpus.card.sample_sha256}",
            where=name,
            remedy="the grammar was changed: put the new sha256 into corpus.yaml",
        )
    print(f"{corpus.card.name}: {corpus.card.summary} Licence {corpus.card.licence}, sha256 ok.")
    rng = Random(corpus.card.seed)
    for _ in range(samples):
        print(f"- {corpus.user_message(rng, 4)}")
