"""Prompts made ready to be learnt on: their answers, and what is held out; and what must hold of a model that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_analysis.errors import EditError
from vlm_analysis.evaluation.run.prepared import DENSE_RESPONSE, Prepared, prepare, with_one_answer
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.offload import is_offloaded
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recovery.heldout import split_held_out
from vlm_analysis.recovery.schedules import Schedule


@dataclass(frozen=True)
class Learning:
    """Prompts to learn on.

    Attributes:
        prepared: the prompts with what is learnt of them.
        used: the prompts as they were given.
        rows, held_out: rows of the prepared prompts to train on, and those to measure on.
    """

    prepared: Prepared
    used: PromptSet
    rows: tuple[int, ...]
    held_out: tuple[int, ...]

    def longest(self) -> int:
        """Return the row to train on that has the most tokens."""
        return max(self.rows, key=self.length)

    def length(self, row: int) -> int:
        """Return the number of tokens of a row."""
        shape = self.prepared.encoded.shapes[row]
        assert shape is not None  # rows are of prompts that were encoded
        return shape.n_tokens


def prepare_to_learn(
    loaded: LoadedModel, prompts: Sequence[Prompt], schedule: Schedule, progress: Progress
) -> Learning:
    """Prepare the prompts, with responses of the dense model where they have no answer, and hold some out.

    Raises:
        EditError: they are of one group, or there are neither answers nor responses.
        PromptError: the model can take none of the prompts.
    """
    used = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    readable = used.readable()
    prepared = prepare(loaded, PromptSet(map(with_one_answer, readable)), on_progress=progress)
    answers = prepared.answers
    usable = [
        row
        for row in prepared.scored(range(len(prepared.prompts)))
        if answers[row].source != DENSE_RESPONSE or answers[row].text.strip()
    ]
    if not usable:
        raise EditError(
            f"{loaded.name} cannot be tuned on these prompts: expected answers, or responses of the dense model, got none. Give the "
            "prompts answers."
        )
    domains = [prompt.domain for prompt in readable]
    rows, held_out = split_held_out(usable, readable.groups.names, domains, schedule.held_out, schedule.seed)
    return Learning(prepared, used, rows, held_out)


def check_trainable(loaded: LoadedModel, failed: str) -> None:
    """Check that weights of this model can be trained; the message begins with what `failed`.

    Raises:
        EditError: they are quantised, of another precision, or not in memory.
    """
    advice = "Load it anew."
    if loaded.quantiser is not None:
        raise EditError(
            f"{failed}: expected weights of numbers, got ones quantised with {loaded.quantiser}. Load the original."
        )
    if loaded.dtype not in ("float32", "bfloat16"):
        raise EditError(f"{failed}: expected float32 or bfloat16, got {loaded.dtype}, whose gradients vanish. {advice}")
    if is_offloaded(loaded.model):
        raise EditError(f"{failed}: expected all weights in memory, got some that accelerate keeps elsewhere. {advice}")
