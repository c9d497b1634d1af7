"""What all sections of a profile have in common: unknown keys refused, frozen, finite numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Wrap = Literal["refuse", "allow"]


class Part(BaseModel):
    """A section of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def one_of(part: Part, *names: str) -> None:
    """ValueError unless exactly one of these keys is given."""
    given = [name for name in names if getattr(part, name) is not None]
    if len(given) != 1:
        both = "not both" if given else "neither is given"
        raise ValueError(
            f"exactly one of {' and '.join(f'`{name}`' for name in names)} is needed, {both}"
        )
