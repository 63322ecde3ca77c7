"""Load a vision-language model and its processor, from the bundled folder, a local one or a hub id.

Weights are read from safetensors only, and no remote code runs unless you allow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vlm_analysis.errors import ModelError
from vlm_analysis.model_info import Locks, ModelInfo
from vlm_analysis.models.adapter import merge, take_template
from vlm_analysis.models.asking import (
    Template,
    all_ends,
    context_length,
    disagreements,
    find_template,
    special_tokens,
    tokens_of,
)
from vlm_analysis.models.config import config_hash
from vlm_analysis.models.fingerprint import model_fingerprint, plain_tensors
from vlm_analysis.models.fit import BYTES, FitEstimate, fit_of
from vlm_analysis.models.layers import (
    find_decoder_layers,
    layer_info,
    layer_parameters,
    locked_layers,
    protected_layers,
)
from vlm_analysis.models.memory import free_bytes, gib, give_back, within_memory
from vlm_analysis.models.offload import bytes_by_place, each_weight
from vlm_analysis.models.processors import bound_vision_tokens, check_vocabulary, load_processor
from vlm_analysis.models.source import BUNDLED, guarded, open_source, quantiser_of
from vlm_analysis.models.spread import Spread, first_device, spread_of
from vlm_analysis.models.trial import check_processor, try_processor
from vlm_analysis.models.vision import VISION_FILE
from vlm_analysis.models.weights import aligned, load_weights
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.words import brief, counted

CPU_VISION_TOKENS = 256
READING = "reading the weights"


@dataclass(eq=False)
class LoadedModel:
    """A loaded model with its processor; `close()` gives the memory back.

    Attributes:
        model: the transformers model, in eval mode. Never changed by Strata: pruning makes views.
        processor: the model's own processor (without its video part where torchvision is missing).
        name: name on screen.
        source: the folder it was loaded from or its hub id.
        max_vision_tokens: bound on the vision tokens of one image; None where the processor alone decides.
        dtype_reason: the reason for its precision, in words.
        quantiser: quantisation method of its weights; None where they are not quantised.
        adapter: the adapter that was merged into its weights, None without one; `source` is then the adapter's folder.
        base: the folder of the base model of that adapter, which has the processor.
    """

    model: Any
    processor: Any
    name: str
    source: str
    max_vision_tokens: int | None = None
    revision: str | None = None
    dtype_reason: str = ""
    adapter: str | None = None
    base: str | None = None
    locked_layers: dict[int, str] = field(init=False)
    protected_layers: dict[int, str] = field(init=False)
    n_layers: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_layers = len(find_decoder_layers(self.model))
        self.locked_layers = locked_layers(self.model)
        self.protected_layers = protected_layers(self.model)

    def __repr__(self) -> str:
        if self.model is None:
            return brief(self, self.name, "closed")
        size = f"{self.n_parameters / 1e6:,.1f} M parameters"
        return brief(self, self.name, counted(self.n_layers, "layer"), size, f"{self.dtype} on {self.device}")

    @cached_property
    def fingerprint(self) -> str:
        """Return a sha256 of everything that decides the numbers: architecture, precision, image bound, a fixed sample of every
        weight tensor, and how prompts become tensors (vocabulary, chat template, image processor, end token)."""
        return model_fingerprint(self.model, self.processor, self.max_vision_tokens, self.template)

    @property
    def info(self) -> ModelInfo:
        """Return the ModelInfo that is saved with items of this model."""
        return replace(
            layer_info(self.model),
            name=self.name,
            fingerprint=self.fingerprint,
            dtype=self.dtype,
            revision=getattr(self.model.config, "_commit_hash", None) or self.revision,
            config_hash=config_hash(self.model.config),
            layer_parameters=self.layer_parameters,
            n_parameters=self.n_parameters,
            chat_template="none" if self.template is None else self.template.file,
            end_token=next(iter(tokens_of(self.processor, self._ends[:1])), None),
            context_length=self.context_length,
            adapter=self.adapter,
            disagreements=tuple(self.disagreements),
        )

    @property
    def locks(self) -> Locks:
        """Return which layers stay, with the reasons."""
        return Locks(self.n_layers, self.protected_layers, self.locked_layers)

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def template(self) -> Template | None:
        """Return the chat template that is in force; None where the checkpoint has none."""
        return find_template(self.processor, [self.source, *([self.base] if self.base else [])])

    @property
    def has_chat_template(self) -> bool:
        """Return whether the checkpoint has a chat template; without one, a prompt is its images, then the question."""
        return self.template is not None

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Return the tokens that no question and no answer may hold, each with its number."""
        return special_tokens(self.processor, self.template)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Return the tokens that end an answer: first the one that the chat template writes, else the first one named.

        Raises:
            ModelError: the checkpoint names none.
        """
        if not self._ends:
            raise ModelError(f"{self.name} has no end token: expected eos_token_id in its generation configuration.")
        return self._ends

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return all_ends(self.model, self.processor, self.template)

    @cached_property
    def context_length(self) -> int | None:
        """Return the most tokens of a prompt with its answer; None where the configuration names none."""
        return context_length(self.model.config)

    @cached_property
    def disagreements(self) -> list[str]:
        """Return a sentence for each point in which the checkpoint's files disagree about how it is asked."""
        found = disagreements(self.model, self.processor, self.template, self.context_length)
        if (Path(self.source) / VISION_FILE).is_file():
            found.append(
                f"{VISION_FILE} lets vision tokens skip layers, and here they run through all: Strata reads no such file. To evaluate "
                "that edit, apply it to the dense model."
            )
        return found

    @property
    def quantiser(self) -> str | None:
        return quantiser_of(self.model.config)

    @property
    def n_bytes(self) -> int:
        """Return the bytes of the weights in memory; those that are kept on disk do not count."""
        state = (tensor for tensor in self.model.state_dict().values() if tensor.device.type != "meta")
        tensors = (inner for tensor in state for inner in plain_tensors(tensor))
        return sum({inner.data_ptr(): inner.numel() * inner.element_size() for inner in tensors}.values())

    @property
    def device(self) -> torch.device:
        """Return where prompts go: the device that computes the model's first part."""
        return first_device(self.model)

    @property
    def places(self) -> dict[str, int]:
        """Return the bytes of the weights by where they are kept: "cuda:0", "cpu", "disk"."""
        return bytes_by_place(self.model)

    @cached_property
    def layer_parameters(self) -> tuple[int, ...]:
        """Return the parameters of each decoder layer (see `layers.layer_parameters`)."""
        return layer_parameters(self.model)

    @cached_property
    def n_tower(self) -> int:
        """Return how many layers of the vision encoder a recording has (see `ModelInfo.n_tower`)."""
        return self.info.n_tower

    @cached_property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for _, parameter in each_weight(self.model))

    def close(self) -> None:
        """Release the weights."""
        self.model = self.processor = None
        give_back()


def load_model(
    source: str | Path = BUNDLED,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_vision_tokens: int | None = None,
    device_map: str | Mapping[str, str | int] | None = None,
    max_memory: str | Mapping[str | int, str | int] | None = None,
    on_progress: Progress | None = None,
) -> LoadedModel:
    """Load a vision-language model and its processor.

    Args:
        source: "pocket-vl" or "pocket-vl-steps" (bundled), a folder saved by transformers, or a hub id.
        device: "auto" (a GPU where there is one), "cpu", "cuda", …
        dtype: "auto" (the checkpoint's on a GPU; on a CPU float32 where it fits, else bfloat16), "float32", "bfloat16" or "float16".
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run Python code that comes with the checkpoint. Leave it off unless you have read that code.
        max_vision_tokens: bound on the vision tokens of one image; None means 256 on a CPU and the model's own on a GPU.
        device_map: "auto" spreads a model that is too large over the GPUs, the memory and the disk, by accelerate; or a device for each
            module. What is on disk is read from the checkpoint's own files whenever it is needed, which takes time at every pass.
        max_memory: with "auto", the most that goes to a device, as {"cpu": "8GiB", 0: "20GiB"} or "cpu=8GiB,cuda:0=20GiB"; by
            default four fifths of what is free there.
        on_progress: called at each stage.

    Raises:
        ModelError: the source is missing, incomplete or not a vision-language model, or does not fit into memory.
    """
    progress = on_progress or no_progress
    spread = spread_of(device_map, max_memory, device)
    target = _device(device)
    _check_dtype(dtype)
    if max_vision_tokens is not None and max_vision_tokens < 1:
        raise ModelError(
            f"Images need vision tokens: expected max_vision_tokens of at least 1, got {max_vision_tokens}."
        )
    progress(0, 4, "reading the configuration")
    opened = open_source(source, revision, trust_remote_code)
    name = opened.name
    if spread is not None and opened.adapter is not None:
        raise ModelError(
            f"{name} cannot be spread: expected a checkpoint, got an adapter, which is merged into weights in memory. Merge it first."
        )
    fit = fit_of(opened, target)
    precision, reason = _choose(fit, dtype, target, spread)
    progress(1, 4, "building the processor")
    check_processor(opened.where, opened.options, name)
    try_processor(opened, lambda message: progress(1, 4, message))
    processor = guarded("processor", name, lambda: load_processor(opened.where, opened.config, opened.options))
    if opened.adapter is not None:
        take_template(processor, opened.adapter)

    def told(done: int, total: int) -> None:
        progress(2, 4, f"{READING}: {done} of {total}")

    def weights() -> Any:
        progress(2, 4, READING)
        model = guarded("weights", name, lambda: load_weights(opened, precision, spread, told))
        check_vocabulary(model, processor, name)
        if (adapter := opened.adapter) is not None:
            guarded("adapter", name, lambda: merge(model, adapter))
        progress(3, 4, f"moving to {target}" if spread is None else "spread over devices")
        return guarded("weights", name, lambda: aligned((model if spread else model.to(target)).eval()))

    model = within_memory(weights, lambda: _ran_out(fit, precision, target))
    bound = max_vision_tokens or (CPU_VISION_TOKENS if target.type == "cpu" else None)
    bounded = bound_vision_tokens(processor, bound)
    progress(4, 4, "loaded")
    loaded = LoadedModel(model, processor, name, opened.where, bound if bounded else None, opened.revision, reason)
    if opened.adapter is not None:
        loaded.source, loaded.base, loaded.adapter = str(opened.adapter.folder), opened.where, opened.adapter.words
    return loaded


def check_source(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | Mapping[str, str | int] | None = None,
    max_memory: str | Mapping[str | int, str | int] | None = None,
    given_back: int = 0,
) -> None:
    """Raise ModelError unless `source` is a vision-language model that would fit; no weights are read.

    Args:
        source, device, dtype, revision, trust_remote_code, device_map, max_memory: as in `load_model`.
        given_back: bytes of the present model, which is unloaded first.
    """
    _check_dtype(dtype)
    target, spread = _device(device), spread_of(device_map, max_memory, device)
    _choose(fit_of(open_source(source, revision, trust_remote_code), target, given_back), dtype, target, spread)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        choice = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"Unknown device {device!r}: expected 'auto', 'cpu' or 'cuda'.") from error
    if choice.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ModelError(f"Unknown device {device!r}: expected 'auto', 'cpu' or 'cuda'.")
    if choice.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("No GPU can be used here: expected a CUDA device. Choose device 'cpu'.")
    return choice


def _check_dtype(dtype: str) -> None:
    if dtype != "auto" and dtype not in BYTES:
        raise ModelError(f"Unknown precision {dtype!r}: expected 'auto', 'float32', 'bfloat16' or 'float16'.")


def _choose(fit: FitEstimate, dtype: str, device: torch.device, spread: Spread | None = None) -> tuple[str, str]:
    """Return the precision to load in, and the reason; raise ModelError before a weight is read if the model does not fit.

    A model that is spread fits: what memory does not hold stays on disk.

    "auto" keeps a margin for activations. A named precision needs no margin, but room for the weights: a system that runs out of
    memory ends the process, and with it all other work in it.
    """
    if spread is not None:
        return (
            (fit.dtype, "the checkpoint's own, as the model is spread") if dtype == "auto" else (dtype, "as you chose")
        )
    precision = fit.auto_dtype if dtype == "auto" else dtype
    if precision is None or fit.weight_bytes(precision) > fit.free:
        raise ModelError(fit.refusal(fit.dtype_for(dtype)))
    if device.type != "cpu":  # weights pass through the machine's memory
        passing = replace(fit, device="cpu", free=free_bytes())
        if passing.weight_bytes(precision) > passing.free:
            raise ModelError(passing.refusal(precision))
    return precision, fit.reason if dtype == "auto" else "as you chose"


def _ran_out(fit: FitEstimate, dtype: str, device: torch.device) -> ModelError:
    """Return the error with advice for memory that ran out despite the estimate."""
    fit = replace(fit, free=free_bytes(device))
    if fit.fits(dtype):  # something other than the machine's memory limits this process
        return ModelError(
            f"Memory ran out while {fit.name!r} was loading: expected {gib(fit.needed_bytes(dtype))} for {dtype} weights and a "
            f"margin, got less than this process may take, though {gib(fit.free)} are free. Choose precision 'bfloat16' or a smaller "
            "model, or raise the limit of this process."
        )
    return ModelError(fit.refusal(dtype))
