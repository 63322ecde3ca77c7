"""Which Parquet files make a split of a dataset: as its card says, else as their names say. Knows no network."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

DEFAULT_CONFIG, DEFAULT_SPLIT = "default", "train"  # the Hub's own words for what is not named
_SHARD = re.compile(r"(^|[-_.])\d+(-of-\d+)?$")
_INSTRUCTIONS, _IMAGES = "_instructions", "_images"


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset: its configuration, its name, the Parquet files that it is in, and how many bytes they have together.

    `beside` holds the files of another configuration that has its pictures; `n_bytes` counts them too.
    """

    config: str
    name: str
    files: tuple[str, ...]
    n_bytes: int
    beside: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Return the configuration and the name as one text: "default/test"."""
        return f"{self.config}/{self.name}"


def splits_of(sizes: dict[str, int], card: dict[str, Any]) -> tuple[HubSplit, ...]:
    """Return the splits of a dataset, sorted by configuration and name.

    Args:
        sizes: bytes by file name.
        card: the metadata of its card, of which `configs` names files by patterns.
    """
    tables = sorted(name for name in sizes if name.lower().endswith(".parquet"))
    found: dict[tuple[str, str], list[str]] = {}
    for config, split, pattern in _named(card.get("configs")):
        found.setdefault((config, split), []).extend(name for name in tables if _fits(name, pattern))
    found = {place: names for place, names in found.items() if names}
    if not found:
        for name in tables:
            found.setdefault(_by_name(name), []).append(name)
    return tuple(
        HubSplit(config, split, files, sum(sizes[name] for name in (*files, *beside)), beside)
        for (config, split), names in sorted(found.items())
        for files, beside in [(tuple(dict.fromkeys(names)), _beside(config, split, found))]
    )


def _named(configs: object) -> Iterator[tuple[str, str, str]]:
    """Yield configuration, split and pattern of each entry of a card; a card is by others, so what does not fit is left out."""
    for config in configs if isinstance(configs, list) else ():
        if not isinstance(config, dict):
            continue
        name, folder = str(config.get("config_name") or DEFAULT_CONFIG), config.get("data_dir")
        entries = config.get("data_files") or ([f"{folder}/**"] if folder else [])
        for entry in entries if isinstance(entries, list) else [entries]:
            split, paths = (
                (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (DEFAULT_SPLIT, entry)
            )
            for path in paths if isinstance(paths, list) else [paths]:
                if isinstance(path, str) and path:
                    yield name, str(split or DEFAULT_SPLIT), path


def _fits(name: str, pattern: str) -> bool:
    plain = pattern.removeprefix("./")
    return any(fnmatch.fnmatchcase(name, one) for one in {plain, plain.replace("**/", "")})


def _by_name(name: str) -> tuple[str, str]:
    """Return configuration and split by a file's name.

    >>> _by_name("data/test-00000-of-00002.parquet"), _by_name("Math/validation/0000.parquet"), _by_name("testmini.parquet")
    (('default', 'test'), ('Math', 'validation'), ('default', 'testmini'))
    """
    path = PurePosixPath(name)
    folders = [part for part in path.parts[:-1] if part.lower() != "data"]
    split = _SHARD.sub("", path.stem)
    if not split and folders:
        split = folders.pop()
    return "/".join(folders) or DEFAULT_CONFIG, split or DEFAULT_SPLIT


def _beside(config: str, split: str, found: dict[tuple[str, str], list[str]]) -> tuple[str, ...]:
    """Return the files with the pictures of a configuration of questions, as GQA keeps them: "…_instructions" and "…_images"."""
    if not config.endswith(_INSTRUCTIONS):
        return ()
    return tuple(found.get((config.removesuffix(_INSTRUCTIONS) + _IMAGES, split), ()))
