"""The arguments and options that several subcommands take."""

from __future__ import annotations

from typing import Annotated

import typer

Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS", help="Bundled packs (general,math), a file or folder, or the name or id of saved prompts."
    ),
]
EditArgument = Annotated[
    str, typer.Argument(metavar="EDIT", help='Layers ("3,5-7"), dense, a file, or the name or id of a saved mask.')
]
Edits = Annotated[
    list[str] | None, typer.Argument(metavar="EDITS", help='Each is layers ("3,5-7"), dense, a file, or a saved mask.')
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Use a mask that was made for another model.")]
Unprotect = Annotated[bool, typer.Option("--unprotect", help="Let protected layers go too.")]
Name = Annotated[str, typer.Option("--name", help="Its name in the workspace.")]
