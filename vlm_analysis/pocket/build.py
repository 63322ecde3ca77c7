"""The architecture, tokenizer and processor of Pocket-VL, a small Qwen3-VL.

Everything is written in the formats transformers reads, so `load_model` treats the folder like any other checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlm_analysis.pocket.pictures import BACKGROUND, SIZE
from vlm_analysis.pocket.tasks import PUNCTUATION, WORDS

N_LAYERS = 16
HIDDEN = 96
PATCH = 8
MERGE = 2
IMAGE_MEAN = [value / 255 for value in BACKGROUND]  # the empty page becomes zero, so only colour remains
IMAGE_STD = [0.25, 0.25, 0.25]

END, NEWLINE = "<|im_end|>", "\n"
SPECIAL = ("<|endoftext|>", "<|im_start|>", END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

# Qwen's chat form without the default system text.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer: lower-case words, single digits, Qwen's special tokens; decoding restores the text."""
    digits = [mark + digit for mark in ("▁", "") for digit in "0123456789"]
    words = [f"▁{word}" for word in dict.fromkeys(WORDS)]
    marks = [mark + sign for mark in ("▁", "") for sign in PUNCTUATION]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, "<unk>", NEWLINE, *digits, *words, *marks])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"▁?[a-z]+|▁?[0-9]|▁?[^a-z0-9▁]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        eos_token=END,
        extra_special_tokens=[*SPECIAL, NEWLINE],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
        model_max_length=2048,
    )


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Return Qwen's image processor for 8-pixel patches: a 64×64 image becomes 16 vision tokens."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        size={"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE},  # the only size it was trained on
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )


def build_config(tokenizer: PreTrainedTokenizerFast, *, deepstack: bool = True) -> Qwen3VLConfig:
    """Return the configuration: 16 decoder layers of width 96, DeepStack after vision blocks 0 and 1 unless left out."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 3 * HIDDEN,
            "num_hidden_layers": N_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 3, 3],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "eos_token_id": token(END),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN,
            "num_position_embeddings": (SIZE // PATCH) ** 2,
            "deepstack_visual_indexes": [0, 1] if deepstack else [],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(seed: int = 0, *, deepstack: bool = True) -> Qwen3VLForConditionalGeneration:
    """Return Pocket-VL with random weights from `seed`, float32, with plain greedy decoding as its default."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    config = build_config(tokenizer, deepstack=deepstack)
    config._attn_implementation = "eager"
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.update(
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    return model


def save_pocket(model: Qwen3VLForConditionalGeneration, folder: Path) -> None:
    """Write model, tokenizer and processor to `folder` as transformers would; the quality card is written separately."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    settings = folder / "preprocessor_config.json"
    saved = json.loads(settings.read_text())
    # The stock names: `AutoProcessor` finds the stock class, and the PIL or torchvision backend by what is installed.
    saved.update(image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen3VLProcessor")
    settings.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    (folder / "processor_config.json").unlink(missing_ok=True)
