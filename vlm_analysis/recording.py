"""The Recording: what one forward pass per prompt told about every decoder layer. Opens without torch and without the model.

Similarities are kept per prompt, so that any mean, spread or bootstrap can be taken later; hidden states never are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import RecordingError
from vlm_analysis.files import write_atomically

TOKEN_GROUPS = ("vision", "text", "answer", "last", "all")
SCHEMA_VERSION = 1
_ARRAYS = {"layer_cosine": np.float64, "span_cosine": np.float64, "token_counts": np.int64, "nonfinite": np.int64}


@dataclass(frozen=True)
class ModelInfo:
    """Which model a stored item belongs to: enough to recognise it without loading it.

    Attributes:
        name: the hub id, or the name of the folder it was loaded from.
        fingerprint: sha256 of all that decides the numbers.
        revision: the commit of a hub id, else what was asked for; None for a folder.
        config_hash: sha256 of the configuration, as far as it decides the architecture; None in items saved before there was one.
    """

    name: str
    fingerprint: str
    n_layers: int
    dtype: str = "float32"
    protected: dict[int, str] = field(default_factory=dict)
    locked: dict[int, str] = field(default_factory=dict)
    revision: str | None = None
    config_hash: str | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ModelInfo:
        """Return the model that `dataclasses.asdict` and JSON made `content` of (JSON turns layer numbers into text)."""
        reasons = {
            name: {int(layer): str(reason) for layer, reason in content[name].items()}
            for name in ("protected", "locked")
        }
        return cls(**{**content, **reasons})


@dataclass(frozen=True, eq=False)
class Recording:
    """Layer similarities of one model on one prompt set.

    Attributes:
        model: the recorded model.
        prompts: fingerprint of the prompt set.
        prompt_ids, domains: one entry a prompt, in prompt order.
        layer_cosine: (n_prompts, n_layers, 5) float64, mean over a prompt's tokens of cos(true layer input, raw layer output),
            the last axis in the order of `TOKEN_GROUPS`; NaN where the prompt has no token of the group.
        span_cosine: (n_prompts, 5, n_layers + 1, n_layers + 1) float64, mean cosine of the stream entering layer i and the
            stream entering layer j (index n_layers: raw output of the last layer); symmetric, ones on the diagonal.
        token_counts: (n_prompts, 5) int64, tokens per group.
        nonfinite: (n_prompts, n_layers) int64, tokens whose cosine was NaN or infinite: counted, left in the mean, never replaced.
        settings: what else decides the numbers (image bound, batch size).
    """

    model: ModelInfo
    prompts: str
    prompt_ids: tuple[str, ...]
    domains: tuple[str, ...]
    layer_cosine: np.ndarray
    span_cosine: np.ndarray
    token_counts: np.ndarray
    nonfinite: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_prompts, n_layers, n_groups = len(self.prompt_ids), self.model.n_layers, len(TOKEN_GROUPS)
        expected = {
            "layer_cosine": (n_prompts, n_layers, n_groups),
            "span_cosine": (n_prompts, n_groups, n_layers + 1, n_layers + 1),
            "token_counts": (n_prompts, n_groups),
            "nonfinite": (n_prompts, n_layers),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                got = getattr(self, name).shape
                raise RecordingError(
                    f"The recording does not fit together: expected {name} of shape {shape}, got {got}."
                )
        if len(self.domains) != n_prompts or n_prompts == 0:
            raise RecordingError(
                f"A recording needs a domain for each prompt: got {len(self.domains)} for {n_prompts}."
            )

    @property
    def n_layers(self) -> int:
        return self.model.n_layers

    @property
    def n_prompts(self) -> int:
        return len(self.prompt_ids)

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Return the domains in order of first appearance."""
        return tuple(dict.fromkeys(self.domains))

    def prompt_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_prompts of the domain, n_layers) mean cosines, one row a prompt; NaN rows lack the group.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        return self.layer_cosine[self._rows(domain), :, _group(token_group)]

    def layer_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_layers,) float64 mean cosine of each layer's true input and raw output, in [-1, 1].

        The mean is over a prompt's tokens, then over prompts with equal weight, also for `domain=None`. Prompts without the
        token group are left out; none left gives NaN.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        return _mean_of_prompts(self.prompt_similarity(domain, token_group), self.has_group(domain, token_group))

    def span_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_layers + 1, n_layers + 1) mean cosines between the streams entering layer i and layer j.

        Where DeepStack adds vision features after layer l, `[l, l + 1]` and `layer_similarity()[l]` differ: the addition is
        not the layer's doing.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        values = self.span_cosine[self._rows(domain), _group(token_group)]
        return _mean_of_prompts(values, self.has_group(domain, token_group))

    def prompts_with(self, domain: str | None = None, token_group: str = "all") -> int:
        """Return how many prompts of the domain have at least one token of the group."""
        return int(self.has_group(domain, token_group).sum())

    def has_group(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return for each prompt of the domain whether it has a token of the group (bool)."""
        return self.token_counts[self._rows(domain), _group(token_group)] > 0

    def _rows(self, domain: str | None) -> np.ndarray:
        if domain is None:
            return np.arange(self.n_prompts)
        if domain not in self.domains:
            raise RecordingError(
                f"No such domain in the recording: expected one of {list(self.domain_names)}, got {domain!r}."
            )
        return np.flatnonzero(np.array(self.domains) == domain)


def _group(token_group: str) -> int:
    if token_group not in TOKEN_GROUPS:
        raise RecordingError(f"Unknown token group: expected one of {list(TOKEN_GROUPS)}, got {token_group!r}.")
    return TOKEN_GROUPS.index(token_group)


def _mean_of_prompts(values: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return the mean over the prompts that have the group; sorted first, so that no order of prompts changes a bit."""
    kept = np.sort(values[has], axis=0)
    return kept.mean(axis=0) if len(kept) else np.full(values.shape[1:], np.nan)


def save_recording(recording: Recording, path: Path) -> Path:
    """Write the recording as one `.npz` without pickle; the file appears whole or not at all. Returns the path."""
    meta = {
        "schema_version": SCHEMA_VERSION,
        "kind": "strata-recording",
        "model": asdict(recording.model),
        "prompts": recording.prompts,
        "prompt_ids": recording.prompt_ids,
        "domains": recording.domains,
        "settings": recording.settings,
    }
    arrays = {name: getattr(recording, name) for name in _ARRAYS}
    encoded = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, meta=encoded, **arrays)

    return write_atomically(Path(path), write)


def open_recording(path: Path) -> Recording:
    """Open a recording written by `save_recording`; needs neither torch nor the model.

    Raises:
        RecordingError: the file is missing, cut short, of another kind or of a newer version.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            meta = json.loads(stored["meta"].tobytes())
            arrays = {name: stored[name].astype(dtype, casting="same_kind") for name, dtype in _ARRAYS.items()}
    except FileNotFoundError:
        raise RecordingError(f"No recording at {path}. Check the path.") from None
    except Exception as error:  # damaged bytes make numpy and zlib raise a dozen kinds
        raise RecordingError(
            f"{path.name} is not a whole recording: expected a Strata .npz file ({error}). Record again."
        ) from error
    return _from_parts(meta, arrays, path.name)


def _from_parts(meta: Any, arrays: dict[str, np.ndarray], name: str) -> Recording:
    try:
        if meta["kind"] != "strata-recording" or not 1 <= meta["schema_version"] <= SCHEMA_VERSION:
            raise RecordingError(
                f"{name} cannot be opened: expected a recording of version {SCHEMA_VERSION} or older, "
                f"got {meta['kind']!r} version {meta['schema_version']}. Update Strata."
            )
        return Recording(
            model=ModelInfo.from_json(meta["model"]),
            prompts=meta["prompts"],
            prompt_ids=tuple(meta["prompt_ids"]),
            domains=tuple(meta["domains"]),
            settings=meta["settings"],
            **arrays,
        )
    except RecordingError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise RecordingError(
            f"{name} is not a whole recording: {error!r} is wrong in its header. Record again."
        ) from error
