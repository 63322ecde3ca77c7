"""`python -m vlm_analysis.pocket train | card`: train a bundled model, or measure it again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vlm_analysis.assets import BUNDLED_MODELS, asset

FIRST = "pocket-vl"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm_analysis.pocket", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train", help="train, or continue from the last checkpoint, then write the quality card"
    )
    train.add_argument("--steps", type=int, help="length of the whole run; the rate falls to zero at its end")
    train.add_argument("--minutes", type=float, help="the most computing in all; the rate falls to zero at its end")
    train.add_argument("--pictures", type=int, help="pictures a step")
    train.add_argument("--no-deepstack", action="store_true", help="build the model without DeepStack")
    train.add_argument("--float32", action="store_true", help="compute in float32: faster where a CPU has no bfloat16")
    train.add_argument("--assets", type=Path, help="where the weights so far are written")
    card = commands.add_parser("card", help="measure a bundled model on held-out examples and write its quality card")
    for command in (train, card):
        command.add_argument("--model", choices=tuple(BUNDLED_MODELS), default=FIRST, help="which bundled model")
    commands.add_parser("packs", help="draw the bundled prompt packs again")
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Run one command; torch is imported only here, so that `--help` is fast."""
    if arguments.command == "train":
        from vlm_analysis.pocket.training import RECIPES, train

        given = {"steps": arguments.steps, "pictures": arguments.pictures, "minutes": arguments.minutes}
        chosen = {name: value for name, value in given.items() if value is not None}
        chosen |= {"deepstack": not arguments.no_deepstack, "bfloat16": not arguments.float32}
        train(arguments.assets or asset(arguments.model), recipe=replace(RECIPES[arguments.model], **chosen))
    elif arguments.command == "card":
        from vlm_analysis.pocket.card import write_card

        print(write_card(asset(arguments.model)).to_string())
    else:
        from vlm_analysis.pocket.card import write_packs

        write_packs(asset("packs"))


if __name__ == "__main__":
    main()
