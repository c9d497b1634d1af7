"""`loadkit corpora`: list, show or validate the texts that traffic is made of."""

from __future__ import annotations

from typing import Annotated

from loadkit.cli.options import argument, option


def corpora(
    name: Annotated[
        str | None,
        argument("bundled name or folder: validate it; hf:NAME: its licence", "NAME"),
    ] = None,
    samples: Annotated[int, option("how many sample messages to show", "N", min=0)] = 3,
) -> None:
    """List the bundled corpora and public sets, or validate one and show samples of it."""
    from random import Random

    from loadkit import corpora as library
    from loadkit.corpora.public import HUB_PREFIX, PUBLIC_SETS, licence_of

    if name is None:
        for each in library.names():
            card = library.load(each).card
            print(f"{card.name:<20} {card.licence:<12} {card.summary}")
        print("\nPublic sets, not part of loadkit (read through `datasets`; their pages decide):")
        for known in PUBLIC_SETS:
            print(f"{known.name}\n    {known.licence}. {known.summary} {known.note}".rstrip())
        return
    if name.startswith(HUB_PREFIX):
        print(licence_of(name))
        return
    corpus = library.load(name)
    corpus.check()
    made = ", ".join(corpus.kinds())
    _say(f"{corpus.card.name}: {corpus.card.summary} Licence {corpus.card.licence}, sha256 ok.")
    _say(f"Holds {made}.")
    if corpus.card.statistics is not None:
        stated = corpus.card.statistics.model_dump().items()
        _say("Of 1,000 messages: " + ", ".join(f"{key} {value}" for key, value in stated) + ".")
    rng = Random(corpus.card.seed)
    for _ in range(samples):
        _say(f"- {corpus.user_message(rng, 4)}")


def _say(text: str) -> None:
    """One line that cannot command a terminal: a corpus may be a stranger's."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    print(line.replace("::", ": :", 1) if line.startswith("::") else line)
