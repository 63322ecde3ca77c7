"""Prompts: images with a question, grouped into named domains. This module knows neither files nor models."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, overload

from PIL import Image

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts import checks
from vlm_analysis.prompts.cells import MAX_ROWS, MAX_SHOWN
from vlm_analysis.prompts.groups import Groups, make_groups
from vlm_analysis.prompts.images import image_hash, is_blank, open_image, open_unchanged
from vlm_analysis.prompts.places import has_marks, parts_of
from vlm_analysis.words import brief, counted, some_of

DEFAULT_DOMAIN = "default"
KEY_DIGITS = 24


@dataclass(frozen=True)
class Prompt:
    """Images with a question; texts lose surrounding blanks, a blank domain becomes "default", a blank answer None.

    A mark `<image>` in the question says where a picture stands: one for each picture, or none, and then they come first. `<image 2>` is
    the place of the second picture. Marks are no text (see `parts`).

    `choices` are the answers that are compared by likelihood; the model does not see them unless the question names them. `group` names
    the prompts that are no independent draws; without it, those that share a picture are (see `PromptSet.groups`). `task` is the level
    below the domain. `answers` are all accepted answers, `answer` first, without repetitions; None where there is one at most. Given
    without `answer`, the most frequent of them is it, of equally frequent ones the first.

    Raises:
        PromptError: there is no image or more than 64, the question is blank, its marks do not fit the images, a text is too long (10,000
            characters; 200 for a domain, task, id or group) or holds a zero byte or half a character, there are more than 100 accepted
            answers, or the choices are not 2 to 26 different texts with the answer, where there is one, among them.
    """

    images: tuple[Path | Image.Image, ...]
    question: str
    domain: str = DEFAULT_DOMAIN
    id: str | None = None
    answer: str | None = None
    choices: tuple[str, ...] | None = field(default=None, kw_only=True)
    group: str | None = field(default=None, kw_only=True)
    answers: tuple[str, ...] | None = field(default=None, kw_only=True)
    task: str | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        facts = [repr(self.id), *([f"task {self.task}"] if self.task else [])]
        said = "no answer" if self.answer is None else f"answer {short(self.answer, 30)!r}"
        return brief(
            self,
            *facts,
            f"domain {self.domain}",
            counted(len(self.images), "image"),
            repr(short(self.question, 50)),
            said,
        )

    def __post_init__(self) -> None:
        answer, answers = checks.checked_answers(self.answer, self.answers)
        cleaned = {
            "images": checks.checked_images(self.images),
            "question": checks.checked_text(self.question, "question", checks.MAX_TEXT),
            "domain": checks.checked_text(self.domain, "domain", checks.MAX_NAME) or DEFAULT_DOMAIN,
            "id": checks.checked_text(self.id, "id", checks.MAX_NAME) or None,
            "answer": answer,
            "answers": answers,
            "group": checks.checked_text(self.group, "group", checks.MAX_NAME) or None,
            "task": checks.checked_text(self.task, "task", checks.MAX_NAME) or None,
        }
        if not cleaned["question"]:
            raise PromptError("the question is blank: expected text, got none. Write what to ask.")
        object.__setattr__(self, "choices", checks.checked_choices(self.choices, answer))
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)
        _ = self.parts

    @property
    def parts(self) -> tuple[str | int, ...]:
        """The texts of the question and, where each image stands, its index from 0, in the order in which a model gets them."""
        return parts_of(self.question, len(self.images))

    def load_images(self) -> tuple[Image.Image, ...]:
        """Return the images as RGB, upright, at most 2048x2048.

        Raises:
            PromptError: an image is missing, damaged or too large.
        """
        return tuple(open_image(image) for image in self.images)

    @cached_property
    def image_hashes(self) -> tuple[str, ...]:
        """The content hash of each image, computed at the first access.

        Raises:
            PromptError: an image is missing, damaged or too large.
        """
        return tuple(image_hash(open_image(image)) for image in self.images)

    @property
    def content(self) -> str:
        """Image hashes, texts, choices and accepted answers, if any, as one line of JSON; hashes that cannot be computed are null."""
        try:
            hashes: tuple[str, ...] | None = self.image_hashes
        except PromptError:
            hashes = None
        return json.dumps([hashes, self.question, self.domain, self.id, self.answer, *self._more(self.choices)]) + "\n"

    @property
    def key(self) -> str:
        """24 hex digits of the sha256 over images, question, answer, choices and accepted answers."""
        fields = [self.image_hashes, self.question, self.answer, self.choices, *self._more()]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:KEY_DIGITS]

    def _more(self, *fields: object) -> list[object]:
        """Return those that are set, with the accepted answers: what is unset changes no key."""
        return [*(one for one in fields if one is not None), *([{"answers": self.answers}] if self.answers else [])]


@dataclass(frozen=True)
class Problem:
    """Something left out while reading: the row (from 1; 0 for the whole source), its id, and the reason.

    Where many rows are left out for one reason, the first are listed, and one problem stands for the others: `n_more` is their number and
    `reason` the message of each; its own message says both.
    """

    row: int
    id: str
    message: str
    n_more: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        # Names on disk may hold lone surrogates, which cannot be displayed.
        for name in ("id", "message", "reason"):
            text = getattr(self, name).encode("utf-8", "replace").decode()
            object.__setattr__(self, name, text)


class SetAside(NamedTuple):
    """A prompt that was asked for and is not in the set, as a picture of it cannot be read.

    Its place among all that were asked for (from 0), its id, the reason, and its content, by which it counts in the fingerprint.
    """

    place: int
    id: str
    reason: str
    content: str


class ReadAs(NamedTuple):
    """The format that a source was read as, and by what it was recognised."""

    title: str
    reason: str

    def __str__(self) -> str:
        """Return both as one line: "LLaVA conversations: 'conversations' with 'from' and 'value'"."""
        return f"{self.title}: {self.reason}"


class PromptSet(Sequence[Prompt]):
    """Prompts with distinct ids, in order; immutable. A prompt without an id gets its position, counted from 1.

    A slice and `for_domain` return a PromptSet without problems, as these belong to the source. `read_as` is the format of the source, None
    where there is none. `aside` are prompts that were asked for and cannot be (see `readable`), in the order of their places.

    Raises:
        PromptError: the set is empty, two prompts share an id, or there are more than 10,000.
    """

    def __init__(
        self,
        prompts: Iterable[Prompt],
        problems: Iterable[Problem] = (),
        *,
        read_as: ReadAs | None = None,
        aside: Iterable[SetAside] = (),
    ) -> None:
        if not isinstance(prompts, Iterable):
            raise PromptError(
                f"the prompt set could not be made: expected prompts, got a {type(prompts).__name__}. "
                "Use open_prompts(...), or a list of Prompt(...)."
            )
        members = tuple(prompts)
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.read_as = read_as
        self.aside: tuple[SetAside, ...] = tuple(aside)
        if not members:
            raise _no_prompts(self.problems)
        for prompt in members:
            if not isinstance(prompt, Prompt):
                got = type(prompt).__name__
                raise PromptError(f"the prompt set could not be made: expected prompts, got a {got}. Use Prompt(...).")
        if len(members) > MAX_ROWS:
            raise PromptError(
                f"the prompt set could not be made: expected {MAX_ROWS:,} prompts at most, got {len(members):,}."
            )
        self._prompts = tuple(p if p.id else replace(p, id=str(number)) for number, p in enumerate(members, 1))
        _refuse_duplicates(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> PromptSet: ...
    def __getitem__(self, index: int | slice) -> Prompt | PromptSet:
        if isinstance(index, slice):
            return PromptSet(self._prompts[index])
        return self._prompts[index]

    def __len__(self) -> int:
        return len(self._prompts)

    def __repr__(self) -> str:
        lost = [counted(len(self.problems), "problem")] if self.problems else []
        return brief(self, counted(len(self), "prompt"), f"domains {some_of(self.domains, 4)}", *lost)

    def __add__(self, other: PromptSet) -> PromptSet:
        return self.extended(other) if isinstance(other, PromptSet) else NotImplemented

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains in the order of their first prompt."""
        return tuple(dict.fromkeys(prompt.domain for prompt in self._prompts))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The task of each prompt, "" where it has none; () where none has one."""
        return tuple(p.task or "" for p in self._prompts) if any(p.task for p in self._prompts) else ()

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) over every prompt's image contents, question, domain, id, answer, choices and accepted answers.

        Prompts that are set aside count too; of a picture that was never read, that it was not.
        """
        return hashlib.sha256("".join(one.content for one in self._asked_for()).encode()).hexdigest()

    @property
    def set_aside(self) -> Mapping[str, str]:
        """By id why prompts that were asked for are not in the set."""
        return MappingProxyType({one.id: one.reason for one in self.aside})

    def readable(self, *, again: bool = False) -> PromptSet:
        """Return the prompts whose pictures can be read, the others in its `set_aside`; the set itself where all can.

        A set made by hand first reads its pictures here. What was read once counts as readable; with `again` only where it still has the
        pixels that it had.

        Raises:
            PromptError: none can be read.
        """
        aside, left = list[SetAside](), list[Prompt]()
        for place, one in enumerate(self._asked_for()):
            reason = "" if isinstance(one, SetAside) else _unreadable(one, again=again)
            if isinstance(one, SetAside):
                aside.append(one)
            elif reason:
                aside.append(SetAside(place, str(one.id), reason, one.content))
            else:
                left.append(one)
        if not left:
            raise PromptError(_none_readable([one.reason for one in aside]))
        return self if len(left) == len(self) else PromptSet(left, self.problems, read_as=self.read_as, aside=aside)

    def _asked_for(self) -> list[Prompt | SetAside]:
        """Return the prompts, with those that are set aside in their places."""
        rows: list[Prompt | SetAside] = list(self._prompts)
        for one in self.aside:
            rows.insert(one.place, one)
        return rows

    @cached_property
    def groups(self) -> Groups:
        """Which prompts share a picture, or the group that was given (see `make_groups`).

        Raises:
            PromptError: an image can no longer be read.
        """
        images = {one: image for p in self._prompts for one, image in zip(p.image_hashes, p.images, strict=True)}
        return make_groups(
            [prompt.key for prompt in self._prompts],
            [prompt.image_hashes for prompt in self._prompts],
            [prompt.group for prompt in self._prompts],
            lambda picture: _is_known_blank(images[picture]),
        )

    @cached_property
    def row_keys(self) -> tuple[str, ...]:
        """32 hex digits per prompt, all different: its `key`, then 8 digits for its domain and the number of equal prompts before it.

        They also tell whether its question has marks of images, which 0.1 took for text: its rows of these are not taken over.

        Raises:
            PromptError: an image can no longer be read.
        """
        counts: Counter[tuple[str, str]] = Counter()
        keys = []
        for prompt in self._prompts:
            one = prompt.key, prompt.domain
            fields = [prompt.domain, counts[one], *(["marks"] if has_marks(prompt.question) else [])]
            rest = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
            keys.append(prompt.key + rest[: 32 - KEY_DIGITS])
            counts[one] += 1
        return tuple(keys)

    def for_domain(self, domain: str) -> PromptSet:
        """Return the prompts of one domain, in order.

        Raises:
            PromptError: the set has no prompt of this domain.
        """
        if domain not in self.domains:
            raise PromptError(f"no prompt of domain '{domain}': expected one of {', '.join(map(repr, self.domains))}.")
        return PromptSet(prompt for prompt in self._prompts if prompt.domain == domain)

    def extended(self, other: PromptSet) -> PromptSet:
        """Return these prompts followed by the others, with the problems of both.

        Raises:
            PromptError: an id occurs in both; the message names it.
        """
        return PromptSet((*self._prompts, *other), (*self.problems, *other.problems))


def _is_known_blank(image: Path | Image.Image) -> bool:
    """Return whether an image has one colour; not where it is gone since its hash was computed."""
    try:
        return is_blank(image)
    except PromptError:
        return False


def _unreadable(prompt: Prompt, *, again: bool) -> str:
    """Return why a picture of the prompt cannot be read, with `again` anew; "" where all can."""
    try:
        for image, expected in zip(prompt.images, prompt.image_hashes, strict=True):
            if again:
                open_unchanged(image, expected)
    except PromptError as error:
        return f"Prompt {prompt.id!r} cannot be asked: {error}"
    return ""


def _none_readable(reasons: Sequence[str]) -> str:
    if len(reasons) == 1:
        return reasons[0]
    first = " ".join(reasons[:MAX_SHOWN])
    return f"None of the {len(reasons)} prompts can be asked: expected pictures that can be read, got: {first}"


def _no_prompts(problems: tuple[Problem, ...]) -> PromptError:
    message = "There are no prompts: expected at least one prompt with an image and a question, got 0"
    if not problems:
        return PromptError(f"{message}. Add one, or open another source.")
    first = "; ".join(f"row {p.row} ('{p.id}'): {p.message}" if p.row else p.message for p in problems[:3])
    return PromptError(f"{message} and {counted(len(problems), 'problem')}. Fix first: {first}")


def _refuse_duplicates(prompts: tuple[Prompt, ...]) -> None:
    twice = [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if twice:
        names = ", ".join(map(repr, twice[:MAX_SHOWN]))
        raise PromptError(
            f"the prompt set could not be made: expected distinct ids, got {names} more than once. Rename one of each."
        )
