"""What tuning takes in memory, and how many prompts run together in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vlm_analysis.errors import EditError

MARGIN = 1.25  # for what a pass holds for a moment; our choice
ENOUGH = 4  # prompts that run together; with fewer, activations are computed twice instead
GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """How tuning fits beside the weights, which are in memory already.

    Attributes:
        dtype: precision of the weights; factors, their gradients and AdamW's two means are float32.
        factors: bytes of all these, and of the best factors so far.
        activations: bytes that one prompt, the longest, keeps for its gradients.
        recomputed: bytes that it keeps where each layer is computed again for its gradients (gradient checkpointing).
        free: bytes that were free.
        batch: prompts that run together; a step runs in parts of so many.
        checkpointing: whether layers are computed again.
    """

    dtype: str
    factors: int
    activations: int
    recomputed: int
    free: int
    batch: int
    checkpointing: bool

    @property
    def needed(self) -> int:
        """Return the bytes that tuning takes beside the weights."""
        return _needed(self.factors, self.recomputed if self.checkpointing else self.activations, self.batch)

    def words(self) -> str:
        """Return the plan for a sentence."""
        again = ", layers computed again for their gradients" if self.checkpointing else ""
        return f"{self.needed / GIB:.2f} of {self.free / GIB:.1f} GiB free: {self.dtype} weights, {self.batch} prompts at a time{again}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_memory(
    *, name: str, dtype: str, factors: int, activations: int, recomputed: int, batch_size: int, free: int
) -> MemoryPlan:
    """Return the plan that fits: the most prompts together, with layers computed again only where few would fit otherwise.

    Args:
        name: of the model, for the message.
        batch_size: prompts in a step.
        dtype, factors, activations, recomputed, free: see `MemoryPlan`.

    Raises:
        EditError: one prompt does not fit.
    """
    plain, again = (_most(factors, per_prompt, batch_size, free) for per_prompt in (activations, recomputed))
    checkpointing = plain < min(ENOUGH, batch_size) and again > plain
    batch = again if checkpointing else plain
    if batch < 1:
        needed = _needed(factors, min(activations, recomputed), 1)
        raise EditError(
            f"{name} cannot be tuned in this memory: expected {needed / GIB:.2f} GiB free for one prompt, got {free / GIB:.2f}. Take "
            "shorter prompts or a lower rank, load the model with fewer vision tokens an image or in bfloat16, or take a larger machine."
        )
    return MemoryPlan(dtype, factors, activations, recomputed, free, batch, checkpointing)


def _needed(factors: int, per_prompt: int, n_prompts: int) -> int:
    return factors + round(MARGIN * per_prompt * n_prompts)


def _most(factors: int, per_prompt: int, batch_size: int, free: int) -> int:
    """Return the most prompts that fit together: the batch size, or its half, quarter and so on; 0 where not one does."""
    batch = batch_size
    while batch and _needed(factors, per_prompt, batch) > free:
        batch //= 2
    return batch
