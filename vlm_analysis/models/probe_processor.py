"""Try a processor of unknown origin on pictures, in a process of its own (`guard.child`).

Its settings are numbers of others: they can ask for pictures without end, or divide by zero.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this process is started without Strata

import torch
from PIL import Image
from transformers import AutoConfig

from vlm_analysis.models.asking import image_mark
from vlm_analysis.models.memory import is_out_of_memory
from vlm_analysis.models.processors import load_processor

SIZES = ((64, 48), (2048, 32), (2048, 2048))  # pixels; pictures are at most as large as the last (`prompts.images`)


def answers(question: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield whether the processor of a checkpoint could be built, and why it prepares no picture; "" where it prepares one."""
    with redirect_stdout(sys.stderr):  # what is written to stdout is the answer
        answer = _tried(question["where"], question["options"])
    yield answer


def _tried(where: str, options: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    try:
        processor = load_processor(where, AutoConfig.from_pretrained(where, **options), options)
    except Exception as error:  # loading meets it again, and tells
        _raise_if_out_of_memory(error)
        return {"is_built": False, "wrong": ""}
    reasons = [_reason(processor, Image.new("RGB", size, "red")) for size in SIZES]
    return {"is_built": True, "wrong": "" if "" in reasons else reasons[0]}


def _reason(processor: Any, picture: Image.Image) -> str:
    """Return why neither the processor nor its image processor alone takes a picture; "" where one does."""
    reason = ""
    text = [f"{image_mark(processor)} a"]
    for prepare in (lambda: processor(text=text, images=[picture]), lambda: processor.image_processor([picture])):
        try:
            prepare()
            return ""
        except Exception as error:
            _raise_if_out_of_memory(error)
            reason = f"{type(error).__name__}: {error}"[:200]
    return reason


def _raise_if_out_of_memory(error: Exception) -> None:
    if is_out_of_memory(error):
        raise MemoryError from error
