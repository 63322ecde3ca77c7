"""Loading a vision-language model and its processor, from the bundled folder, a local one or a hub id.

Weights come from safetensors only and no remote code runs unless asked. Without torchvision, processors that own a video
processor refuse to be built; then a subclass of the model's own processor class without the video part is used.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from vlm_analysis.errors import ModelError
from vlm_analysis.layer_config import config_hash
from vlm_analysis.layers import find_decoder_layers, locked_layers, protected_layers
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.recording import ModelInfo

BUNDLED = "pocket-vl"
BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / BUNDLED
CPU_VISION_TOKENS = 256
_FINGERPRINT_SAMPLES = 4096
_ALIGNMENT = 64  # bytes; what torch gives tensors of its own


@dataclass(eq=False)
class LoadedModel:
    """A loaded model with its processor; `close()` gives the memory back.

    Attributes:
        model: the transformers model, in eval mode. Never changed by Strata: pruning makes views.
        processor: the model's own processor (without its video part where torchvision is missing).
        name: what to call it on screen.
        source: the folder it was loaded from or its hub id.
        max_vision_tokens: bound on the vision tokens of one image, None where the processor alone decides.
    """

    model: Any
    processor: Any
    name: str
    source: str
    max_vision_tokens: int | None = None
    revision: str | None = None
    locked_layers: dict[int, str] = field(init=False)
    protected_layers: dict[int, str] = field(init=False)
    n_layers: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_layers = len(find_decoder_layers(self.model))
        self.locked_layers = locked_layers(self.model)
        self.protected_layers = protected_layers(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Return a sha256 of all that decides the numbers: architecture, precision, image bound, a fixed sample of every
        weight tensor, and how prompts become tensors (vocabulary, chat template, image processor, end token)."""
        return model_fingerprint(self.model, self.processor, self.max_vision_tokens)

    @property
    def info(self) -> ModelInfo:
        """Return what a stored item needs to know of this model."""
        return ModelInfo(
            self.name,
            self.fingerprint,
            self.n_layers,
            self.dtype,
            self.protected_layers,
            self.locked_layers,
            getattr(self.model.config, "_commit_hash", None) or self.revision,
            config_hash(self.model.config),
        )

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def close(self) -> None:
        """Let go of the weights."""
        self.model = self.processor = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_model(
    source: str | Path = BUNDLED,
    *,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_vision_tokens: int | None = None,
    on_progress: Progress | None = None,
) -> LoadedModel:
    """Load a vision-language model and its processor.

    Args:
        source: "pocket-vl" (bundled), a folder saved by transformers, or a hub id.
        device: "auto" (a GPU where there is one), "cpu", "cuda", …
        dtype: "auto" (the checkpoint's on a GPU; float32 on a CPU), "float32", "bfloat16" or "float16".
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run Python code that comes with the checkpoint. Leave it off unless you have read that code.
        max_vision_tokens: bound on the vision tokens of one image; None means 256 on a CPU and the model's own on a GPU.
        on_progress: told of the stages.

    Raises:
        ModelError: the source is missing, incomplete, no vision-language model, or does not fit into memory.
    """
    report = on_progress or no_progress
    target = _device(device)
    if max_vision_tokens is not None and max_vision_tokens < 1:
        raise ModelError(
            f"Images need vision tokens: expected max_vision_tokens of at least 1, got {max_vision_tokens}."
        )
    report(0, 4, "reading the configuration")
    where, name, options, config = _open_source(source, revision, trust_remote_code)
    report(1, 4, "building the processor")
    processor = _guarded("processor", name, lambda: _load_processor(where, config, options))
    report(2, 4, "reading the weights")
    precision = _dtype(dtype, target)
    model = _guarded("weights", name, lambda: _load_weights(where, precision, options))
    _check_vocabulary(model, processor, name)
    report(3, 4, f"moving to {target}")
    model = _guarded("weights", name, lambda: aligned(model.to(target).eval()))
    bound = max_vision_tokens or (CPU_VISION_TOKENS if target.type == "cpu" else None)
    bounded = bound_vision_tokens(processor, bound)
    report(4, 4, "loaded")
    return LoadedModel(model, processor, name, where, bound if bounded else None, revision)


def check_source(source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
    """Raise ModelError unless `source` has the configuration of a vision-language model; no weights are read."""
    _open_source(source, revision, trust_remote_code)


def _open_source(
    source: str | Path, revision: str | None, trust_remote_code: bool
) -> tuple[str, str, dict[str, Any], Any]:
    """Return where a source lies, its name, the options to load it with, and its configuration, known to be of a VLM."""
    folder = _folder_of(source)
    where, name = (str(folder), folder.name) if folder else (str(source), str(source))
    options = {
        "trust_remote_code": trust_remote_code,
        "revision": revision or "main",
        "local_files_only": folder is not None,
    }
    config = _guarded("configuration", name, lambda: AutoConfig.from_pretrained(where, **options))
    _check_is_vlm(config, name)
    return where, name, options, config


def model_fingerprint(model: Any, processor: Any, max_vision_tokens: int | None = None) -> str:
    """Return the fingerprint (see `LoadedModel.fingerprint`): fast on large models, and the same however files are sharded."""
    digest = hashlib.sha256(f"{type(model).__name__} {model.dtype} {max_vision_tokens}".encode())
    image_processor, tokenizer = getattr(processor, "image_processor", None), processor.tokenizer
    inputs = {
        "images": image_processor.to_dict() if image_processor is not None else None,
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "template": getattr(processor, "chat_template", None),
        "end": model.generation_config.eos_token_id,
    }
    digest.update(json.dumps(inputs, sort_keys=True, default=str).encode("utf-8", "backslashreplace"))
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if not key.startswith("_") and key != "transformers_version"
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _FINGERPRINT_SAMPLES)
        digest.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def aligned(model: Any) -> Any:
    """Return the model with every weight at an even place in memory; weights read from a file lie as the file has them.

    On a CPU the place decides which instructions multiply matrices, and with them the last bits of the logits: of two models with
    equal weights, both aligned, the logits are equal.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
    return model


def bound_vision_tokens(processor: Any, bound: int | None) -> bool:
    """Make the image processor keep images below `bound` vision tokens; False where it has no such setting."""
    image_processor: Any = getattr(processor, "image_processor", None)
    size: Any
    size, merge = getattr(image_processor, "size", None), getattr(image_processor, "merge_size", None)
    longest = getattr(size, "longest_edge", None)
    if bound is None or merge is None or longest is None:
        return False
    pixels = bound * (image_processor.patch_size * merge) ** 2  # in this family `longest_edge` counts pixels
    size.longest_edge = min(longest, pixels)
    size.shortest_edge = min(size.shortest_edge or pixels, size.longest_edge)
    return True


def _folder_of(source: str | Path) -> Path | None:
    """Return the local folder `source` names, None for a hub id."""
    if source == BUNDLED:
        return BUNDLED_FOLDER
    text = str(source).strip()
    if not text:
        raise ModelError(
            "No model was named: expected 'pocket-vl', a folder saved by transformers, or a hub id like 'owner/name'."
        )
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"No model can be read at {text!r}: {error}. Check the path and its permissions.") from error
    looks_like_path = (
        isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") != 1 or "\\" in text
    )
    if looks_like_path or path.exists():
        raise ModelError(
            f"No model at {text!r}: expected a folder saved by transformers, 'pocket-vl', or a hub id like 'owner/name'."
        )
    return None


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"Unknown device {device!r}: expected 'auto', 'cpu' or 'cuda'.") from error
    if chosen.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ModelError(f"Unknown device {device!r}: expected 'auto', 'cpu' or 'cuda'.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("No GPU can be used here: expected a CUDA device. Choose device 'cpu'.")
    return chosen


def _dtype(dtype: str, device: torch.device) -> Any:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ModelError(f"Unknown precision {dtype!r}: expected 'auto', 'float32', 'bfloat16' or 'float16'.")
    return getattr(torch, dtype)


def _check_is_vlm(config: Any, name: str) -> None:
    supported = AutoModelForImageTextToText._model_mapping
    if type(config) not in supported:
        raise ModelError(
            f"{name!r} is not a vision-language model that transformers {transformers.__version__} can build: its type is "
            f"{getattr(config, 'model_type', '?')!r}. Choose a checkpoint for image-text-to-text."
        )


def _check_vocabulary(model: Any, processor: Any, name: str) -> None:
    """Refuse a tokenizer that is missing, or whose tokens or end token the model has no embedding for."""
    tokenizer: Any = getattr(processor, "tokenizer", None)
    vocabulary = tokenizer.get_vocab() if tokenizer is not None else {}
    if len(vocabulary) <= len(getattr(tokenizer, "all_special_tokens", ())):
        raise ModelError(f"{name!r} has no tokenizer: expected its files beside the weights. Download it again.")
    rows = model.get_input_embeddings().weight.shape[0]
    ends = model.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id] if ends is None else ends if isinstance(ends, list) else [ends]
    highest = max([*vocabulary.values(), *(end for end in ends if end is not None)])
    if highest >= rows or not ends:
        raise ModelError(
            f"The tokenizer of {name!r} does not fit the model: token {highest} is used, the model embeds {rows}, and its end "
            f"tokens are {ends}. Use the tokenizer that belongs to the checkpoint."
        )


def _load_weights(where: str, dtype: Any, options: dict[str, Any]) -> Any:
    model, info = AutoModelForImageTextToText.from_pretrained(
        where, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"The checkpoint is incomplete: {len(missing)} weights are missing, first {missing[0]!r}. "
            "They would be random. Download or save it again."
        )
    surplus = sorted(key for key in info["unexpected_keys"] if re.search(r"\.layers\.\d+\.", key))
    if surplus:
        raise ModelError(
            f"The weights do not fit the configuration: it leaves out {len(surplus)} weights of layers, first {surplus[0]!r}. "
            "The layer count in config.json is too small; mend it or download the checkpoint again."
        )
    if info["mismatched_keys"]:
        raise ModelError(
            f"The weights do not fit the configuration: {sorted(info['mismatched_keys'])[0]}. Download it again."
        )
    return model


def _load_processor(where: str, config: Any, options: dict[str, Any]) -> Any:
    if importlib.util.find_spec("torchvision") is not None:
        return AutoProcessor.from_pretrained(where, **options)
    base = PROCESSOR_MAPPING.get(type(config), None)
    if base is None or "video_processor" not in base.get_attributes():
        return AutoProcessor.from_pretrained(where, **options)
    return _without_video(base).from_pretrained(where, **options)


def _without_video(base: Any) -> Any:
    """Return a subclass of a processor class that is built from all its parts and settings but the video processor."""
    whole = inspect.signature(base.__init__)
    rest = whole.replace(parameters=[p for name, p in whole.parameters.items() if name != "video_processor"])

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        given = rest.bind(self, *args, **kwargs).arguments
        more = given.pop("kwargs", {})
        stand_in = _NoVideo()
        state = vars(self)  # while it is built it has the parts of its base, of which one is a stand-in
        state["get_attributes"] = base.get_attributes
        state["check_argument_for_proper_class"] = lambda name, part: (
            None if part is stand_in else base.check_argument_for_proper_class(self, name, part)
        )
        base.__init__(**given, **more, video_processor=stand_in)
        for name in ("get_attributes", "check_argument_for_proper_class", "video_processor"):
            state.pop(name, None)

    def known_settings(processor_config: dict[str, Any], valid_kwargs: Any) -> Any:
        return base.validate_init_kwargs(processor_config, list(rest.parameters))  # not those of `build`

    build.__signature__ = rest  # type: ignore[attr-defined]
    own = {"__init__": build, "validate_init_kwargs": staticmethod(known_settings), "__module__": base.__module__}
    return type(base.__name__, (base,), own)


class _NoVideo:
    """Stands for a video processor while a processor is built; some read its settings then."""

    slice_mode = downsample_mode = None


def _guarded(part: str, name: str, load: Callable[[], Any]) -> Any:
    """Run `load`, turning what transformers raises into one ModelError that says what failed."""
    try:
        return load()
    except ModelError:
        raise
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise ModelError(
            f"{name!r} does not fit into memory. Choose precision 'bfloat16' or a smaller model."
        ) from error
    except ImportError as error:
        raise ModelError(
            f"The {part} of {name!r} needs a package that is not installed: {_first_line(error)}"
        ) from error
    except Exception as error:  # transformers raises many kinds; each means the checkpoint cannot be used
        raise ModelError(
            f"The {part} of {name!r} could not be loaded: {_first_line(error)} Check that the source is a complete "
            "vision-language checkpoint saved by transformers, and for a hub id that this machine is online."
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].strip()
    return line if line.endswith(".") else line + "."
