"""Checks of the images, texts and choices of a prompt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from vlm_analysis.errors import PromptError

MAX_TEXT = 10_000
MAX_NAME = 200
MAX_IMAGES = 64
MAX_CHOICES = 26
MAX_ANSWERS = 100


def checked_images(images: object) -> tuple[Path | Image.Image, ...]:
    """Return 1 to 64 images, texts as paths."""
    if not isinstance(images, (tuple, list)):
        raise PromptError(
            f"the prompt's images could not be used: expected a tuple, got a {type(images).__name__}. Write (image,)."
        )
    if not 1 <= len(images) <= MAX_IMAGES:
        raise PromptError(
            f"the prompt was refused: expected 1 to {MAX_IMAGES} images, got {len(images)}. Change their number."
        )
    checked = tuple(Path(image) if isinstance(image, str) else image for image in images)
    for image in checked:
        if not isinstance(image, (Path, Image.Image)):
            raise PromptError(
                f"the prompt's images could not be used: expected paths or images, got a {type(image).__name__}. "
                "Open bytes with open_image."
            )
    return checked


def checked_text(value: object, name: str, limit: int) -> str:
    """Return a text without surrounding blanks; None becomes "", except for the question."""
    if value is None and name != "question":
        return ""
    if not isinstance(value, str):
        raise PromptError(
            f"the {name} could not be used: expected text, got a {type(value).__name__}. Write it as text."
        )
    text = value.strip()
    if len(text) > limit:
        raise PromptError(
            f"the {name} is too long: expected at most {limit:,} characters, got {len(text):,}. Shorten it."
        )
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"the {name} is damaged: expected text, got a zero byte or half a character. Type it again.")
    return text


def checked_answers(answer: object, answers: object) -> tuple[str | None, tuple[str, ...] | None]:
    """Return the reference answer, and all accepted answers with it first; None where there is one at most.

    Without `answer` the most frequent of the others is it, of equally frequent ones the first; blank ones do not count.
    """
    first = checked_text(answer, "answer", MAX_TEXT)
    if answers is None:
        return first or None, None
    if not isinstance(answers, (tuple, list)):
        raise PromptError(
            f"the accepted answers could not be used: expected a tuple of texts, got a {type(answers).__name__}. Write (one, other)."
        )
    if len(answers) > MAX_ANSWERS:
        raise PromptError(
            f"the accepted answers were refused: expected {MAX_ANSWERS} at most, got {len(answers):,}. Leave some out."
        )
    texts = [text for one in answers if (text := checked_text(one, "accepted answer", MAX_TEXT))]
    first = first or next((text for text, _ in Counter(texts).most_common(1)), "")
    accepted = tuple(dict.fromkeys([first, *texts]))
    return first or None, accepted if len(accepted) > 1 else None


def checked_choices(choices: object, answer: object) -> tuple[str, ...] | None:
    """Return 2 to 26 different texts, which include the answer if there is one; None where there are no choices."""
    if choices is None:
        return None
    if not isinstance(choices, (tuple, list)):
        raise PromptError(
            f"the choices could not be used: expected a tuple of texts, got a {type(choices).__name__}. Write (one, other)."
        )
    if not 2 <= len(choices) <= MAX_CHOICES:
        raise PromptError(
            f"the choices were refused: expected 2 to {MAX_CHOICES}, got {len(choices)}. Change their number."
        )
    checked = tuple(checked_text(choice, "choice", MAX_TEXT) for choice in choices)
    if "" in checked or len(set(checked)) < len(checked):
        twice = next(choice for choice in checked if not choice or checked.count(choice) > 1)
        got = f"{twice[:60]!r} twice" if twice else "a blank one"
        raise PromptError(f"the choices were refused: expected different texts, got {got}. Change one.")
    if isinstance(answer, str) and answer not in checked:
        raise PromptError(
            f"the answer is none of the choices: expected one of {', '.join(repr(choice[:60]) for choice in checked)}, "
            f"got {answer[:60]!r}. Write it as the choice is written."
        )
    return checked
