"""Pack several questions about one picture into one sequence, so that the image is encoded once.

A block mask lets every question attend to the image and itself only, and positions restart after the image, so the packed
forward pass returns the logits that each question has alone (as tested). Used for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlm_analysis.pocket.build import END, MERGE, PATCH
from vlm_analysis.pocket.pictures import SIZE
from vlm_analysis.pocket.tasks import QuestionAndAnswer

IMAGE_TOKENS = (SIZE // PATCH // MERGE) ** 2
PREFIX = "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * IMAGE_TOKENS + "<|vision_end|>"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class PackedBatch:
    """Tensors of one packed batch of B pictures, T tokens and A answer tokens in all.

    `block` is (B, T): 0 image prefix, k the k-th question, -1 padding. `sources` (A, 2) are the (row, position) whose logits
    predict `targets` (A,); `answer` (A,) numbers the answer each target belongs to, counted over the whole batch.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    block: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    answer: torch.Tensor


class Packer:
    """Turns pictures with questions and answers into packed batches."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        image_processor: Qwen2VLImageProcessorPil,
    ) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.prefix = self._tokens(PREFIX)
        ids = torch.tensor([self.prefix])
        is_image = (ids == model.config.image_token_id).long()
        grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]])
        self.prefix_positions = model.model.get_rope_index(ids, mm_token_type_ids=is_image, image_grid_thw=grid)[0][
            :, 0
        ]

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def pack(
        self, pictures: Sequence[tuple[Image.Image, Sequence[QuestionAndAnswer]]], *, most_tokens: int | None = None
    ) -> PackedBatch:
        """Return the batch of these pictures, each with its own list of (question, answer).

        With `most_tokens` questions that would make a row longer are left out, for less padding in training.
        """
        rows, positions, blocks, sources, targets, answers = [], [], [], [], [], []
        first_free = int(self.prefix_positions.max()) + 1
        answer_number = 0
        for row, (_, pairs) in enumerate(pictures):
            ids, blocks_of_row = list(self.prefix), [0] * len(self.prefix)
            row_positions: list[int] = []
            for number, (question, answer) in enumerate(pairs, start=1):
                question_ids = self._tokens(question + SUFFIX)
                answer_ids = [*self._tokens(answer), self.end]
                if (
                    most_tokens is not None
                    and number > 1
                    and len(ids) + len(question_ids) + len(answer_ids) > most_tokens
                ):
                    continue
                start = len(ids) + len(question_ids)
                sources += [(row, start + offset - 1) for offset in range(len(answer_ids))]
                targets += answer_ids
                answers += [answer_number] * len(answer_ids)
                answer_number += 1
                ids += question_ids + answer_ids
                blocks_of_row += [number] * (len(question_ids) + len(answer_ids))
                row_positions += range(first_free, first_free + len(question_ids) + len(answer_ids))
            rows.append(ids)
            blocks.append(blocks_of_row)
            positions.append(torch.cat([self.prefix_positions, torch.tensor(row_positions).expand(3, -1)], dim=1))
        pixels = self.image_processor(images=[image for image, _ in pictures], return_tensors="pt")
        return PackedBatch(
            input_ids=_pad([torch.tensor(row) for row in rows], self.tokenizer.pad_token_id),
            positions=torch.stack([_pad(list(axis), 0) for axis in zip(*positions, strict=True)]),
            block=_pad([torch.tensor(block) for block in blocks], -1),
            pixel_values=pixels["pixel_values"],
            image_grid_thw=pixels["image_grid_thw"],
            sources=torch.tensor(sources),
            targets=torch.tensor(targets),
            answer=torch.tensor(answers),
        )


def _pad(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def block_mask(block: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive attention mask (B, 1, T, T) of `PackedBatch.block`: causal, own block or image prefix only."""
    n_tokens = block.shape[1]
    query, key = block[:, :, None], block[:, None, :]
    causal = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
    visible = causal & ((key == query) | (key == 0))
    return torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def answer_logits(model: Qwen3VLForConditionalGeneration, batch: PackedBatch) -> torch.Tensor:
    """Return the logits (A, vocabulary) at the positions that predict the answer tokens."""
    hidden = model.model(
        input_ids=batch.input_ids,
        attention_mask=block_mask(batch.block, model.dtype),
        position_ids=batch.positions,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(hidden[batch.sources[:, 0], batch.sources[:, 1]])


def answers_right(logits: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """Return per answer whether every token, the end included, is the argmax (bool, one entry per answer)."""
    wrong = (logits.argmax(-1) != batch.targets).float()
    counts = torch.zeros(int(batch.answer.max()) + 1).index_add_(0, batch.answer, wrong)
    return counts == 0
