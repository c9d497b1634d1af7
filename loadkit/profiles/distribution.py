"""A declared distribution of lengths, turns or times."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from loadkit.profiles.part import Part

# Figures that each distribution takes beside min and max.
_NEEDED: dict[str, tuple[str, ...]] = {
    "constant": ("mean",),
    "geometric": ("mean",),
    "lognormal": ("median", "sigma"),
    "uniform": (),
    "choice": ("values",),
}
_ALLOWED = {"choice": ("weights",)}


class Distribution(Part):
    """A declared distribution; `source` says where its figures come from."""

    distribution: Literal["constant", "geometric", "lognormal", "uniform", "choice"] = Field(
        description="constant: mean; geometric: mean >= 1; lognormal: median and sigma; uniform; "
        "choice: values, each as likely as its weight"
    )
    mean: float | None = Field(None, ge=0, description="mean (constant and geometric)")
    median: float | None = Field(None, gt=0, description="median (lognormal)")
    sigma: float | None = Field(None, ge=0, le=10, description="sigma of the logarithm (lognormal)")
    values: tuple[float, ...] | None = Field(
        None, min_length=1, max_length=10_000, description="the values there are (choice)"
    )
    weights: tuple[float, ...] | None = Field(
        None, min_length=1, max_length=10_000, description="of the values (choice; None: equal)"
    )
    min: float = Field(0.0, ge=0, description="values below are raised to it")
    max: float = Field(le=1e9, description="values above are lowered to it")
    source: str = Field(min_length=1, description="where these figures come from")

    @model_validator(mode="after")
    def _complete(self) -> Distribution:
        needed = _NEEDED[self.distribution]
        known = (*needed, *_ALLOWED.get(self.distribution, ()))
        for name in ("mean", "median", "sigma", "values", "weights"):
            if name not in known and getattr(self, name) is not None:
                takes = ", ".join((*known, "min", "max"))
                raise ValueError(
                    f"{self.distribution} takes {takes}; `{name}` would have no effect"
                )
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{self.distribution} needs `{name}`")
        if self.min > self.max:
            raise ValueError("min is above max")
        self._check_weights()
        return self

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if len(self.weights) != len(self.values or ()):
            raise ValueError("as many `weights` as `values` are needed")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError("`weights` must not be negative, nor all 0")
