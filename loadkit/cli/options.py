"""Options and arguments that several verbs take: one type each, so that they read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def option(*names: str, help: str, metavar: str | None = None, **limits: Any) -> Any:
    """An option; its name is the parameter's unless given. limits: min and max of a number."""
    return typer.Option(*names, help=help, metavar=metavar, **limits)


# Logs
LogFiles = Annotated[list[Path], typer.Argument(metavar="LOG", help="Log files, read as one.")]
LogFormat = Annotated[
    str, option(help="A log format's name; found from the first rows unless given.", metavar="NAME")
]
LogTokenizer = Annotated[
    str | None, option(help="The served tokenizer, for text logs.", metavar="PATH-OR-NAME")
]
LogBlockSize = Annotated[
    int | None, option(help="Tokens a block; the format's own unless given.", metavar="N")
]
Strict = Annotated[bool, option("--strict", help="Any warning about the log is an error.")]
SkipBad = Annotated[
    bool, option("--skip-bad", help="Skip rows that do not fit; count and list them.")
]
ModelConfig = Annotated[
    Path | None, option(help="The model's config.json, for capacities in GiB.", metavar="PATH")
]
KvDtype = Annotated[
    str | None, option(help="The KV cache's type if not the model's.", metavar="fp8")
]

# Traffic and its endpoint
Url = Annotated[
    str | None, option(help="The endpoint, such as http://127.0.0.1:8000.", metavar="URL")
]
Model = Annotated[
    str | None, option(help="Model to ask for [default: the only one listed].", metavar="NAME")
]
Tokenizer = Annotated[
    str | None, option(help="The served tokenizer: folder or hub name.", metavar="NAME")
]
BlockSize = Annotated[
    int | None, option(help="Tokens a block [default: what the server says].", metavar="N", min=1)
]
Settings = Annotated[
    list[str] | None,
    option("--set", help="Override a key of the profile; repeatable.", metavar="A.B=C"),
]
Processes = Annotated[int, option(help="Load worker processes.", metavar="N", min=1)]
ApiKeyFile = Annotated[
    Path | None, option(help="File with the API key; or set LOADKIT_API_KEY.", metavar="FILE")
]

# Verdicts
Expected = Annotated[
    Path | None, option(help="Forecast JSON (`loadkit forecast --json`).", metavar="FILE")
]
PolicyFile = Annotated[
    Path | None,
    option(
        "--policy",
        "--thresholds",
        help="gate.yaml with thresholds and objectives [default: the profile's, else ours].",
        metavar="FILE",
    ),
]
Baseline = Annotated[
    Path | None,
    option(help="Earlier run folder that this one must not fall behind.", metavar="DIR"),
]
Junit = Annotated[Path | None, option(help="Also write JUnit XML here.", metavar="FILE")]
Markdown = Annotated[
    Path | None, option(help="Also write a summary as Markdown here.", metavar="FILE")
]

# Output
AsJson = Annotated[bool, option("--json", help="One JSON object on stdout, nothing else.")]
JsonFile = Annotated[
    Path | None, option("-o", "--output", help="Write the JSON here too.", metavar="FILE")
]
