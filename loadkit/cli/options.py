"""What several verbs take: options as one type each, those that belong together as one dataclass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from loadkit.client.secret import Secret
    from loadkit.profiles import Profile
    from loadkit.traffic.plan import TrafficPlan


def option(help: str, metavar: str, *names: str, **limits: Any) -> Any:
    """An option; its name is the parameter's unless given. limits: min and max of a number."""
    return typer.Option(*names, help=help, metavar=metavar, **limits)


def flag(name: str, help: str) -> Any:
    """An option without a value, and without a `--no-` to take it back."""
    return typer.Option(name, help=help)


def argument(help: str, metavar: str) -> Any:
    return typer.Argument(help=help, metavar=metavar)


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb for Typer: of a parameter that is a dataclass every field is an option of its own."""
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    taken: list[Parameter] = []
    for name, parameter in signature(verb).parameters.items():
        if name in groups:
            taken += _spread(groups[name])
        else:
            kind = Parameter.KEYWORD_ONLY
            taken.append(parameter.replace(annotation=hints[name], kind=kind))

    @wraps(verb)
    def flat(*leading: Any, **given: Any) -> None:
        for name, group in groups.items():
            names = [each.name for each in fields(group) if each.name in given]
            given[name] = group(**{each: given.pop(each) for each in names})
        verb(*leading, **given)

    flat.__signature__ = Signature(taken)  # type: ignore[attr-defined]
    flat.__annotations__ = {each.name: each.annotation for each in taken}
    return flat


def _spread(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(f.name, Parameter.KEYWORD_ONLY, default=_default(f), annotation=hints[f.name])
        for f in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default


Settings = Annotated[
    list[str] | None, option("Override a key of the profile; repeatable.", "A.B=C", "--set")
]
PolicyFile = Annotated[
    Path | None,
    option(
        "gate.yaml with thresholds and objectives [default: the profile's, else ours].",
        "FILE",
        *("--policy", "--thresholds"),
    ),
]
PageSize = Annotated[int | None, option("SGLang's tokens a page; 1 unless given.", "N")]
Latency = Annotated[
    float | None,
    option(
        "Seconds a request runs, all alike, for a finite cache of overlapping ones.", "S", min=0
    ),
]
PrefillRate = Annotated[
    float | None, option("Prompt tokens a second, for the same.", "N", min=1e-9)
]
AsJson = Annotated[bool, flag("--json", "One JSON object on stdout, nothing else.")]
Expected = Annotated[Path | None, option("Forecast JSON (`loadkit forecast --json`).", "FILE")]
JsonFile = Annotated[Path | None, option("Write the JSON here too.", "FILE", "-o", "--output")]


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How a profile is sent to an endpoint."""

    model: Annotated[
        str | None, option("Model to ask for [default: the only one listed].", "NAME")
    ] = None
    tokenizer: Annotated[
        str | None, option("The served tokenizer: folder or hub name.", "NAME")
    ] = None
    block_size: Annotated[
        int | None, option("Tokens a block [default: what the server says].", "N", min=1)
    ] = None
    settings: Settings = None
    processes: Annotated[int, option("Load worker processes.", "N", min=1)] = 1
    reset: Annotated[
        bool, flag("--reset", "Empty the server's prefix cache first, and check it.")
    ] = False
    api_key_file: Annotated[
        Path | None, option("File with the API key; or set LOADKIT_API_KEY.", "FILE")
    ] = None

    def key(self) -> Secret | None:
        """The file's key, else the environment's."""
        from loadkit.client.secret import read_api_key

        return read_api_key(self.api_key_file)

    def planned(
        self, profile: str, url: str | None, more: Sequence[str] = ()
    ) -> tuple[Profile, TrafficPlan]:
        """The profile with --set and `more` settings, and its plan: refused if a tokenizer shows
        it not fresh. A URL that is none is refused first, and a key that is none."""
        from loadkit import profiles
        from loadkit.client.endpoint import Endpoint
        from loadkit.corpora.public import tell_licences
        from loadkit.planning import plan_for_run

        key = self.key()
        if url is not None:
            Endpoint.parse(url)
        emptied = ["cache=reset"] if self.reset else []
        chosen = profiles.load(profile, [*(self.settings or ()), *emptied, *more])
        tell_licences(chosen.traffic.model_dump())
        plan = plan_for_run(
            chosen,
            tokenizer=self.tokenizer,
            block_size=self.block_size,
            url=url,
            key=key,
            model=self.model,
        )
        return chosen, plan


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What a verdict goes by, and where it is written besides."""

    baseline: Annotated[
        Path | None, option("Earlier run folder that this one must not fall behind.", "DIR")
    ] = None
    policy: PolicyFile = None
    junit: Annotated[Path | None, option("Also write JUnit XML here.", "FILE")] = None
    markdown: Annotated[Path | None, option("Also write a summary as Markdown here.", "FILE")] = (
        None
    )
