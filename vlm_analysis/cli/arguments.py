"""The arguments and options that several subcommands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="Bundled packs (general,math), a file or folder, saved prompts, or hub:owner/name/split.",
    ),
]
EditArgument = Annotated[
    str, typer.Argument(metavar="EDIT", help='Layers ("3,5-7"), dense, a file, or the name or id of a saved mask.')
]
Edits = Annotated[
    list[str] | None, typer.Argument(metavar="EDITS", help='Each is layers ("3,5-7"), dense, a file, or a saved mask.')
]
OnCluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Measure on a Ray cluster: host:port, or auto for the one on this machine, which is started where there is none.",
    ),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Use a mask that was made for another model.")]
Unprotect = Annotated[bool, typer.Option("--unprotect", help="Let protected layers go too.")]
Keep = Annotated[str, typer.Option("--keep", help='Layers that you want to keep: "3,5-7".')]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="For .puzzletron.json: the dense model's config.json, with the width of its layers."),
]
MASK_FILES = (
    ".json",
    ".yaml",
    ".optipfair.json",
    ".txt",
    ".llm-drop.json",
    ".torch-pruning.json",
    ".shortv.txt",
    ".vtw.txt",
    ".fastv.txt",
)
"""The endings of files of an edit, beside those of tables; `.txt` is the flag of llama.cpp."""
Reading = dict[str, Any]
"""Arguments of `open_prompts` that say how a file of prompts is read (see `base.READING_OPTIONS`)."""
Name = Annotated[str, typer.Option("--name", help="Its name in the workspace.")]
