"""Passes of a model over prompts, of which the streams around every layer are read: together, and one by one where that fails.

What is made of the streams is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from vlm_analysis.errors import PromptError, RecordingError
from vlm_analysis.models.inputs import Encoded, collate, pad_token, takes_logits_to_keep
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming
from vlm_analysis.recording.streams import LayerWatch, Streams


class Passes:
    """Reads the streams of prompts.

    Args:
        loaded: the model as it was loaded.
        model: what runs: its module, or a view of it.
        middles: whether the streams between attention and MLP are read too.
        beside: what else watches each pass.

    Attributes:
        set_aside: by id the prompts that the model refuses, each with the reason.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        model: Any,
        *,
        middles: bool,
        beside: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.loaded, self.model, self.beside = loaded, model, beside
        self.watch = LayerWatch(model, middles=middles)
        self.keep = {"logits_to_keep": 1} if takes_logits_to_keep(model) else {}
        self.set_aside: dict[str, str] = {}

    def read(self, items: Sequence[Encoded]) -> Iterator[tuple[list[int], Streams]]:
        """Yield the places of prompts with their streams, which live until the next are asked for; those that are set aside are left out.

        Prompts that fail together run one by one.

        Raises:
            RecordingError: the layers get different tokens, or none of them runs.
        """
        try:
            streams = self._read(items)
        except PromptError as error:
            if len(items) == 1:
                self.set_aside[items[0].id] = str(error)
                return
        else:
            yield list(range(len(items))), streams
            return
        for place, item in enumerate(items):
            for _, alone in self.read([item]):
                yield [place], alone

    def _read(self, items: Sequence[Encoded]) -> Streams:
        streams = self._run(items)
        if streams.uneven and self.keep:  # the model left out tokens whose logits are not needed
            self.keep = {}
            streams = self._run(items)
        if streams.uneven:
            raise RecordingError(f"{self.loaded.name} hands its layers different tokens: they cannot be compared.")
        if not any(streams.ran):
            raise RecordingError(
                f"{self.loaded.name} ran none of its {self.loaded.n_layers} decoder layers: nothing could be recorded."
            )
        return streams

    def _run(self, items: Sequence[Encoded]) -> Streams:
        batch = collate(items, pad_token(self.loaded))
        with ExitStack() as stack:
            streams = stack.enter_context(self.watch.watching(batch["input_ids"].shape))
            stack.enter_context(self.beside())
            stack.enter_context(interruptible(self.model))
            stack.enter_context(naming([item.id for item in items], self.loaded.name))
            self.model(**batch, **self.keep, use_cache=False)
        return streams
