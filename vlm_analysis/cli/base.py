"""What all subcommands share: the group that lists them along the flow, exit codes, progress, `--json` and `--out`.

Results go to stdout, progress and errors to stderr. Errors that a user can correct exit with 2 and one message, a stop with 130; anything
else is a bug and keeps its traceback. Nothing heavy is imported before a subcommand runs, so that `--help` answers at once.

A new subcommand is a function under `@command`: its signature is what it takes, its docstring what `--help` says. A parameter called
`bench`, `shelf`, `reading`, `on_progress` or `out` is not an option itself but adds the options it needs; one that returns a `Result`
takes `--json` and `--out` too.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vlm_analysis import __version__
from vlm_analysis.cli.advice import in_options
from vlm_analysis.cli.output import Result, check_out, print_result
from vlm_analysis.errors import PromptError, StrataError
from vlm_analysis.progress import Cancelled, Progress
from vlm_analysis.workbench.terminal import printable, shown

STOPPED = "Stopped. What was measured so far is kept; run the same command again to continue."
MENDABLE, INTERRUPTED = 2, 130
STAGES = ("Dashboard", "Record", "Choose", "Recover", "Judge", "Export", "Look", "Share")
"""The stages of the flow under which `--help` lists the subcommands, in their order."""
LOUD = ("torchao", "torch.utils._pytree")
"""Loggers that warn of kernels which nothing here calls: transformers imports torchao wherever it is installed."""
LATER = {"Bench": object, "Workspace": object, "Result": Result}  # names in signatures that are not imported here

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Model = Annotated[
    str, typer.Option("--model", help="pocket-vl, pocket-vl-steps, a folder written by save_pretrained, or a Hub id.")
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub id.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda; auto takes a GPU where there is one.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Precision: auto, float32, bfloat16 or float16.")]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--max-vision-tokens", min=1, help="Most vision tokens an image; 256 on a CPU, the model's own limit on a GPU."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the checkpoint. Read it first.")
]
Map = Annotated[
    str | None,
    typer.Option("--device-map", help="auto spreads a model that is too large over GPUs, memory and disk."),
]
Memory = Annotated[
    str | None,
    typer.Option("--max-memory", help="With it, the most weights on a device, as cpu=8GiB,cuda:0=20GiB."),
]
MODEL_OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": (Model, "pocket-vl"),
    "revision": (Revision, None),
    "device": (Device, "auto"),
    "dtype": (Dtype, "auto"),
    "max_vision_tokens": (Tokens, None),
    "trust_remote_code": (Trust, False),
    "device_map": (Map, None),
    "max_memory": (Memory, None),
}
"""The options of the Model page, with their defaults."""
Project = Annotated[
    str, typer.Option("--project", help="The project whose work is used and kept; a new name begins one.")
]
Format = Annotated[
    str | None, typer.Option("--format", help="How a file of prompts is read, where it is not recognised.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns", metavar="OURS=THEIRS", help="What a column is called there, as question=query; may be repeated."
    ),
]
Images = Annotated[
    str | None,
    typer.Option("--images", help="The folder or archive of the images, where paths in the table start there."),
]
Domain = Annotated[str | None, typer.Option("--domain", help="The column whose values are the domains.")]
Turns = Annotated[str | None, typer.Option("--turns", help="Of a conversation ask its first, its last or each turn.")]
READING_OPTIONS: dict[str, tuple[Any, Any]] = {
    "format": (Format, None),
    "columns": (Columns, None),
    "images": (Images, None),
    "domain": (Domain, None),
    "turns": (Turns, None),
}
"""How a file of prompts is read; see `vlm_analysis.open_prompts`."""


class Stages(TyperGroup):
    """The commands under the stage of the flow that each belongs to."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        stages: dict[str, list[tuple[str, str]]] = {stage: [] for stage in STAGES}
        width = formatter.width - 6 - max(map(len, self.commands))
        for name, one in self.commands.items():
            stages[str(getattr(one, "rich_help_panel", ""))].append((name, one.get_short_help_str(width)))
        for stage, rows in stages.items():
            with formatter.section(stage):
                formatter.write_dl(rows)


strata = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, cls=Stages
)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without × gets "?"
    strata(prog_name="strata")


def command(stage: str, *endings: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the subcommand of its name, under a stage of the flow; returns the function.

    `endings` are the file endings that `--out` takes beside those of a table.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        strata.command(rich_help_panel=stage)(ending(_with_shared_options(function, endings)))
        return function

    return register


def _with_shared_options(function: Callable[..., Any], endings: tuple[str, ...]) -> Callable[..., None]:
    """Return the function with the options that its shared parameters and its result add."""
    signature = inspect.signature(function, eval_str=True, locals=LATER)
    own, returns_result = signature.parameters, signature.return_annotation is Result
    own_parameters = [
        one for name, one in own.items() if name not in ("bench", "shelf", "reading", "on_progress", "out")
    ]
    options = dict(READING_OPTIONS) if "reading" in own else {}
    options |= {"project": (Project, "")} if {"shelf", "bench"} & set(own) else {}
    options |= MODEL_OPTIONS if "bench" in own else {}
    options |= {"quiet": (Quiet, False)} if "on_progress" in own else {}
    options |= {"out": (_out_option(endings), None), "as_json": (Json, False)} if returns_result else {}
    shared_parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in options.items()
    ]
    by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own_parameters]

    @wraps(function)
    def shared(**arguments: Any) -> None:
        shared_options = {name: arguments.pop(name) for name in options}
        out: Path | None = shared_options.get("out")
        if out is not None:
            check_out(out, endings)
        with progress(bool(shared_options.get("quiet"))) as on_progress:
            values = _shared_values(own, shared_options) | {"on_progress": on_progress, "out": out}
            result = function(**arguments, **{name: value for name, value in values.items() if name in own})
        if returns_result:
            print_result(result, say, out=out, as_json=shared_options["as_json"])

    del shared.__wrapped__  # typer would look at the function's own signature
    shared.__signature__ = inspect.Signature([*by_name, *shared_parameters])  # type: ignore[attr-defined]
    shared.__annotations__ = {}
    return shared


def _shared_values(own: Any, shared_options: dict[str, Any]) -> dict[str, Any]:
    """Return the workspace, how prompts are read and the Bench of the chosen model, where a subcommand takes them."""
    from vlm_analysis.workbench.projects import DEFAULT
    from vlm_analysis.workbench.workspace import Workspace

    values: dict[str, Any] = {}
    if {"shelf", "bench"} & set(own):
        values["shelf"] = shelf = Workspace(project=shared_options["project"])
        if shelf.project and shelf.project not in shelf.projects():
            warn(f"The project '{shelf.project}' is new; there are {', '.join([DEFAULT, *shelf.projects()])}.")
    if "reading" in own:
        values["reading"] = _reading({name: shared_options[name] for name in READING_OPTIONS})
    if "bench" not in own:
        return values
    from vlm_analysis.workbench.bench import Bench

    options = {
        name: shared_options[name] for name, (_, default) in MODEL_OPTIONS.items() if shared_options[name] != default
    }
    return values | {"bench": Bench(options.pop("model", "pocket-vl"), values["shelf"], **options)}


def _reading(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `open_prompts` that were given; `--columns` as a mapping.

    Raises:
        PromptError: one of the columns is no pair.
    """
    pairs = [text.partition("=") for text in options["columns"] or ()]
    odd = next(("".join(pair) for pair in pairs if not pair[0].strip() or not pair[2].strip()), None)
    if odd is not None:
        raise PromptError(
            f"--columns takes pairs: expected OURS=THEIRS, got '{odd[:100]}'. Write --columns question=query."
        )
    columns = {ours.strip(): theirs.strip() for ours, _, theirs in pairs} or None
    return {name: value for name, value in (options | {"columns": columns}).items() if value is not None}


def _out_option(endings: tuple[str, ...]) -> Any:
    known = ", ".join(dict.fromkeys((".csv", ".parquet", ".html", *endings)))
    return Annotated[Path | None, typer.Option("--out", help=f"Write it to a file too; its ending says how: {known}.")]


def ending(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with the exit codes that all subcommands share."""

    @wraps(function)
    def guarded(*positional: Any, **arguments: Any) -> None:
        try:
            function(*positional, **arguments)
        except StrataError as error:
            _end(in_options(str(error)), MENDABLE)
        except (Cancelled, KeyboardInterrupt):
            _end(STOPPED, INTERRUPTED)

    return guarded


def _end(message: str, code: int) -> None:
    typer.echo(printable(message), err=True)
    raise typer.Exit(code) from None


def progress(quiet: bool) -> AbstractContextManager[Progress]:
    """Return a context whose progress is shown on stderr, in place of the progress bars of transformers and of torchao's warnings."""
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return shown(sys.stderr, quiet=quiet)


def say(text: str) -> None:
    """Print a result to stdout."""
    typer.echo(printable(text))


def warn(text: str) -> None:
    """Print a warning to stderr."""
    typer.echo(printable(text), err=True)


def _version(show: bool) -> None:
    if show:
        say(f"strata {__version__}")
        raise typer.Exit


@strata.callback()
def _strata(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Which decoder layers of a vision-language model can you do without?"""
