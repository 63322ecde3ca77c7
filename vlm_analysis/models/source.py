"""Open the source of a model: its location, and its configuration, checked to be of a vision-language model that can be built.

No weight is read here. Sizes in a configuration are checked before any code uses them.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import transformers
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from vlm_analysis.assets import BUNDLED_MODELS, asset
from vlm_analysis.errors import ModelError, short
from vlm_analysis.guard.child import no_panic
from vlm_analysis.guard.shared import check_path, is_shared, refuse_if_shared
from vlm_analysis.models.adapter import Adapter, base_of, open_adapter
from vlm_analysis.models.files import check_ordinary, weight_files
from vlm_analysis.models.folders import open_folder
from vlm_analysis.models.memory import is_out_of_memory
from vlm_analysis.progress import Cancelled

T = TypeVar("T")
BUNDLED = "pocket-vl"
BUNDLED_FOLDER = asset(BUNDLED)
QUANTISERS = {"torchao": "torchao==0.18.0"}  # the supported methods, and the package to install
_LARGEST = (  # largest plausible value by a pattern for the setting's name; the first match counts
    (re.compile(r"(^|_)(num|n)_(\w+_)?(layers?|blocks|stages)$|^(layers|depths?)$"), 1_000),
    (re.compile(r"(^|_)(num|n)_(\w+_)?(experts|heads?)$"), 4_096),
    (re.compile(r"(^|_)(image|patch|window|crop|tile)_size$"), 65_536),
    (re.compile(r"(_size|_dim|^d_model|_channels)$"), 2**24),
)
_BUNDLED_WORDS = ", ".join(map(repr, BUNDLED_MODELS))
_LARGEST_NUMBER = 2**53
_NUMBERS_ONLY = re.compile(r"(^|_)(num|n)_(\w+_)?(layers|heads|experts)$|^(hidden|intermediate|vocab)_size$")
_VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "tekken.json")
_OWN = (  # where a checkpoint with code of its own names its class, the best first
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoModelForCausalLM",
    "AutoModel",
)
_TEXT_ONLY = (
    (AutoModelForCausalLM, "a language model without a vision tower"),
    (AutoModelForSeq2SeqLM, "an encoder-decoder language model without a vision tower"),
)


@dataclass(frozen=True)
class Source:
    """An opened source.

    Attributes:
        where: the folder or hub id, as transformers takes it.
        name: name on screen.
        options: arguments for every `from_pretrained` of it.
        config: the whole model's configuration.
        files: its safetensors files where it is a folder, None for a hub id.
        revision: the commit that a folder of the Hub's cache holds, else what was asked for.
        adapter: a LoRA that is merged into the weights of the base model at `where`.
    """

    where: str
    name: str
    options: dict[str, Any]
    config: Any
    files: tuple[Path, ...] | None
    revision: str | None = None
    adapter: Adapter | None = None

    @property
    def has_own_class(self) -> bool:
        """Return whether its model class is code of its own that may run."""
        return bool(self.options["trust_remote_code"]) and _own_class(self.config)

    @property
    def quantiser(self) -> str | None:
        """Return the name of the method that the weights are quantised with, None where they are not."""
        return quantiser_of(self.config)


def open_source(source: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> Source:
    """Open a folder, a bundled model or a hub id without reading weights.

    Raises:
        ModelError: it does not exist, is not a vision-language model, has impossible sizes, is quantised by an unsupported method,
            or its files are incomplete or damaged.
    """
    _check_shared(source, trust_remote_code)
    path = folder_of(source)
    if path is not None:
        check_ordinary(path)
    opened = None if path is None else open_folder(path)
    adapter = open_adapter(opened.path) if opened is not None and opened.is_adapter else None
    folder = None if opened is None else opened.path if adapter is None else _base_folder(adapter)
    where, name = (str(folder), opened.name) if opened else (str(source), str(source))
    options = {
        "trust_remote_code": trust_remote_code,
        "revision": revision or "main",
        "local_files_only": folder is not None,
    }
    if folder is not None:
        check_ordinary(folder)
    settings, _ = guarded("configuration", name, lambda: PreTrainedConfig.get_config_dict(where, **options))
    _check_sizes(settings, name)
    _check_quantiser(settings, name)
    _check_code(settings, name, trust_remote_code)
    config = guarded("configuration", name, lambda: AutoConfig.from_pretrained(where, **options))
    if not (trust_remote_code and _own_class(config)):
        _check_is_vlm(config, name)
    files = None if folder is None else tuple(weight_files(folder))
    if folder is not None and not trust_remote_code:  # remote code may have its own kind of vocabulary
        _check_has_tokenizer(folder)
    return Source(where, name, options, config, files, opened.revision if opened else revision, adapter)


def _base_folder(adapter: Adapter) -> Path:
    base = open_folder(base_of(adapter))
    if base.is_adapter:
        raise ModelError(
            f"{adapter.folder.name!r} is an adapter of an adapter: expected a whole model as its base, got {base.name!r}. "
            "Merge that one first, and save it."
        )
    return base.path


def _own_class(config: Any) -> bool:
    """Return whether the checkpoint brings a model class of its own, and make it the one that is loaded."""
    named = getattr(config, "auto_map", None) or {}
    own = next((named[auto] for auto in _OWN if auto in named), None)
    if own is not None:
        config.auto_map = {**named, _OWN[0]: own}
    return own is not None


def parent_renamings(own: type) -> dict[str, str]:
    """Return the weights' names that transformers changed for the class that a checkpoint's own class derives from, as `key_mapping`."""
    for parent in own.__mro__:
        if not parent.__module__.startswith("transformers.models."):
            continue
        kind = getattr(getattr(parent, "config_class", None), "model_type", None)
        changes = get_checkpoint_conversion_mapping(parent.__name__) or get_checkpoint_conversion_mapping(kind) or []
        return {
            change.source_patterns[0]: change.target_patterns[0] for change in changes if type(change) is WeightRenaming
        }
    return {}


def _check_shared(source: str | Path, trust_remote_code: bool) -> None:
    """Raise ModelError in shared mode for code of a checkpoint, hub ids and folders outside of the workspace."""
    if trust_remote_code:
        refuse_if_shared("Running code of a checkpoint", "Load a model that needs none.", ModelError)
    if not is_shared() or (isinstance(source, str) and source in BUNDLED_MODELS):
        return
    check_path(Path(str(source).strip()), "The model", ModelError, *map(asset, BUNDLED_MODELS))


def folder_of(source: str | Path) -> Path | None:
    """Return the local folder that `source` names; None for a hub id."""
    if isinstance(source, str) and source in BUNDLED_MODELS:
        return asset(source)
    text = str(source).strip()
    if not text:
        raise ModelError(
            f"No model was named: expected {_BUNDLED_WORDS}, a folder saved by transformers, or a hub id like 'owner/name'."
        )
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"No model can be read at {short(repr(text))}: {short(error)}. Check the path and its permissions."
        ) from error
    looks_like_path = (
        isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") != 1 or "\\" in text
    )
    if looks_like_path or path.exists():
        raise ModelError(
            f"No model at {short(repr(text))}: expected a folder saved by transformers, {_BUNDLED_WORDS}, or a hub id like 'owner/name'."
        )
    return None


def quantiser_of(config: Any) -> str | None:
    """Return the quantisation method that a configuration, or its settings, names."""
    settings = config if isinstance(config, dict) else config.to_dict()
    for part in (settings, settings.get("text_config")):
        quantisation = (
            part.get("quantization_config") or part.get("compression_config") if isinstance(part, dict) else None
        )
        if quantisation:
            fields = quantisation if isinstance(quantisation, dict) else vars(quantisation)
            bits = fields.get("load_in_8bit") or fields.get("load_in_4bit")
            method = fields.get("quant_method") or ("bitsandbytes" if bits else "an unnamed method")
            return str(getattr(method, "value", method))[:40]
    return None


def guarded(part: str, name: str, load: Callable[[], T]) -> T:
    """Run `load`, turning what transformers raises into one ModelError that says what failed; memory errors are raised unchanged."""
    try:
        with no_panic():
            return load()
    except (ModelError, Cancelled):
        raise
    except ImportError as error:
        raise ModelError(
            f"The {part} of {name!r} needs a package that is not installed: {first_line(error)}"
        ) from error
    except Exception as error:  # transformers raises many kinds; each means that the checkpoint cannot be used
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The {part} of {name!r} could not be loaded: {first_line(error)} Check that the source is a complete "
            "vision-language checkpoint saved by transformers, and for a hub id that this machine is online."
        ) from error


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    line = short(text.splitlines()[0])
    return line if line.endswith(".") else line + "."


def _check_sizes(settings: dict[str, Any], name: str) -> None:
    """Raise ModelError for a configuration that is none or has impossible numbers, before anything is built from it."""
    kind = settings.get("model_type", "") if isinstance(settings, dict) else settings
    if not isinstance(kind, str):
        raise ModelError(_absurd(name, "model_type", "a name", kind))
    for key, value in values_in(settings):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if _NUMBERS_ONLY.search(key) and not number and value is not None:
            raise ModelError(_absurd(name, key, "a number", value))
        most = next((most for pattern, most in _LARGEST if pattern.search(key)), None)
        least = 1 if key == "hidden_size" else 0
        if number and most is not None and not least <= value <= most:
            raise ModelError(_absurd(name, key, f"a number from {least} to {most:,}", value))
        if number and not abs(value) <= _LARGEST_NUMBER and isinstance(value, int):
            raise ModelError(_absurd(name, key, f"a number up to {_LARGEST_NUMBER:,}", value))


def values_in(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (name, value) except containers; entries of a list have the list's name."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from values_in(item, str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from values_in(item, key)
    else:
        yield key, value


def _absurd(name: str, key: str, expected: str, value: Any) -> str:
    return (
        f"The configuration of {name!r} cannot be true: expected {expected} for {key[:60]!r}, got {str(value)[:40]!r}. "
        "Fix config.json or download the checkpoint again."
    )


def _check_has_tokenizer(folder: Path) -> None:
    if not any(path for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        raise ModelError(
            f"{folder.name!r} has no tokenizer: expected tokenizer.json beside the weights. Download it again."
        )


def _check_quantiser(settings: dict[str, Any], name: str) -> None:
    method = quantiser_of(settings)
    if method is None:
        return
    if method not in QUANTISERS:
        raise ModelError(
            f"{name!r} is quantised with {method}, which is not loaded here: expected unquantised weights or "
            f"{' or '.join(QUANTISERS)}. Choose the checkpoint it was made from."
        )
    if importlib.util.find_spec(method) is None:
        raise ModelError(
            f"{name!r} is quantised with {method}, which is not installed. Run: pip install {QUANTISERS[method]}"
        )


def _check_code(settings: dict[str, Any], name: str, trust_remote_code: bool) -> None:
    """Raise ModelError for a checkpoint that only code of its own can build, unless that code may run."""
    kind, own = settings.get("model_type"), settings.get("auto_map")
    if trust_remote_code or kind in CONFIG_MAPPING or not isinstance(own, dict) or "AutoConfig" not in own:
        return
    raise ModelError(
        f"{name!r} brings code of its own: expected a model type of transformers {transformers.__version__}, got {str(kind)[:80]!r}. "
        "Read its code; where you trust it, load it with trust_remote_code, on the Model page under Options."
    )


def _check_is_vlm(config: Any, name: str) -> None:
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return
    kind = getattr(config, "model_type", "?")
    words = next((words for auto, words in _TEXT_ONLY if type(config) in auto._model_mapping), None)
    kind_words = (
        f"{kind!r} is {words}" if words else f"transformers {transformers.__version__} builds none of type {kind!r}"
    )
    raise ModelError(
        f"{name!r} is not a vision-language model: {kind_words}. Choose a checkpoint for image-text-to-text."
    )
