"""Probe suites: the same few tasks asked of every picture, so that layers are compared over tasks and not over questions.

The tasks are those of arXiv:2603.20275, five of mathematics and four of general vision, each one fixed text. The wording is ours. Prompts
of a suite have no answers: they are for recordings, not for scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from vlm_analysis.errors import PromptError, short
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.cells import MAX_ROWS
from vlm_analysis.prompts.checks import MAX_NAME
from vlm_analysis.prompts.images import IMAGE_SUFFIXES
from vlm_analysis.prompts.problems import Problems
from vlm_analysis.prompts.prompts import Problem, Prompt, PromptSet
from vlm_analysis.prompts.sources import ARCHIVE_SUFFIXES, found_upload, image_root
from vlm_analysis.prompts.spool import spooled

PAPER = "the tasks of arXiv:2603.20275 in our words"


@dataclass(frozen=True)
class Suite:
    """Tasks that are asked of every picture.

    Attributes:
        title: on screen.
        source: where the tasks come from.
        tasks: by name, the question.
    """

    title: str
    source: str
    tasks: dict[str, str]


SUITES: dict[str, Suite] = {
    "math": Suite(
        "Math, five tasks",
        PAPER,
        {
            "solve": "Solve the problem in this picture. Write down each step.",
            "answer": "What is the answer to the problem in this picture? Give the answer and nothing else.",
            "rephrase": "Say the problem in this picture again in other words.",
            "formalise": "Write the problem in this picture as equations.",
            "judge": "Does this picture hold all that is needed to solve its problem? Answer yes or no.",
        },
    ),
    "general": Suite(
        "General, four tasks",
        PAPER,
        {
            "describe": "Say in one sentence what can be seen in this picture.",
            "list": "List the objects in this picture.",
            "count": "How many main objects are in this picture?",
            "name": "Which object stands out most in this picture? Name it.",
        },
    ),
}

Pictures = Path | str | PromptSet | Sequence[tuple[str, bytes]]


class _Picture(NamedTuple):
    name: str
    path: Path | Image.Image | None
    problem: str = ""


def probe_prompts(pictures: Pictures, suites: str | Collection[str] = ("math", "general")) -> PromptSet:
    """Return a prompt for each picture and task; the suite is the domain, and prompts of one picture are one group.

    Args:
        pictures: a folder or a zip or tar of pictures, at any depth; the pictures of prompts; or uploads `(name, data)` of pictures and
            archives. Files in other formats are left out.
        suites: keys of `SUITES`. For pictures of different domains call it once for each and add the sets.

    Raises:
        PromptError: an unknown suite, no picture that can be read, or more prompts than 10,000.
    """
    names = (suites,) if isinstance(suites, str) else tuple(dict.fromkeys(suites))
    if unknown := [name for name in names if name not in SUITES] or not names:
        raise PromptError(
            f"There is no such suite: expected some of {list(SUITES)}, got {unknown or 'none'}. Name them."
        )
    found, problems = list(_found(pictures)), Problems()
    tasks = [(name, *task) for name in names for task in SUITES[name].tasks.items()]
    if len(found) * len(tasks) > MAX_ROWS:
        raise PromptError(
            f"The suite cannot be asked: expected {MAX_ROWS // len(tasks):,} pictures at most for {len(tasks)} tasks, got {len(found):,}. "
            "Take fewer pictures or suites."
        )
    prompts = []
    for number, picture in enumerate(found, 1):
        stop_if_asked()
        try:
            asked = _asked(picture, tasks)
        except PromptError as error:
            message = str(error).replace(f"'{short(picture.path)}'", f"'{short(picture.name)}'")
            problems.add(Problem(number, picture.name[:MAX_NAME], message))
        else:
            prompts += asked
    if not prompts and not problems.listed():
        raise PromptError(
            f"The suite cannot be asked: expected pictures ({', '.join(IMAGE_SUFFIXES)}), got none. Name a folder that holds some."
        )
    return PromptSet(prompts, problems.listed())


def _asked(picture: _Picture, tasks: Sequence[tuple[str, str, str]]) -> list[Prompt]:
    """Return the prompts of one picture, which is decoded, so that a broken one is reported by its name."""
    if picture.path is None:
        raise PromptError(picture.problem)
    asked = []
    for suite, task, question in tasks:
        name = f"{picture.name[: MAX_NAME - len(suite) - len(task) - 4]}, {suite} {task}"
        asked.append(Prompt((picture.path,), question, suite, name, task=task))
    _ = asked[0].image_hashes
    return asked


def _found(pictures: Pictures) -> Iterator[_Picture]:
    if isinstance(pictures, PromptSet):
        paths: dict[Path | Image.Image, None] = dict.fromkeys(one for prompt in pictures for one in prompt.images)
        for number, path in enumerate(paths, 1):
            yield _Picture(f"picture {number}", path)
    elif isinstance(pictures, (str, Path)):
        yield from _in(image_root(pictures))
    else:
        for name, data in pictures:
            if name.lower().endswith(ARCHIVE_SUFFIXES):
                yield from _in(found_upload(name, data).files)
            else:
                yield _Picture(name, spooled(data))


def _in(files: Files) -> Iterator[_Picture]:
    for name in files.names():
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            try:
                yield _Picture(name, files.image(name))
            except PromptError as error:
                yield _Picture(name, None, str(error))
