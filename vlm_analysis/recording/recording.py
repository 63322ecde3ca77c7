"""The Recording: the measures of every decoder layer, from one forward pass per prompt. Opens without torch and without the model.

Every measure (see `measures`) is kept per prompt, so that any mean, spread or bootstrap can be taken later; hidden states never are.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import RecordingError, short
from vlm_analysis.guard.memory import refuse_larger
from vlm_analysis.guard.schema import LONGEST, TEXTS, different, fields, listed, row, table, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.recording.arrays import PARTS
from vlm_analysis.recording.maps import TokenMap, append_maps, map_name, read_map
from vlm_analysis.recording.measures import (
    HSIC_PARTS,
    MEASURES,
    check_ranges,
    filled_rows,
    from_triangle,
    mean_of_prompts,
    row_type,
)
from vlm_analysis.recording.pooled import SCHEMA as POOLED, Pooled, Task, pooled_content, pooled_of
from vlm_analysis.saved import FINGERPRINT, MAX_BYTES, Arrays, Form
from vlm_analysis.words import TOKEN_GROUPS, brief, counted, prompts_in

MOST_PROMPTS = 10_000  # as in a prompt set
_NAMES = listed(text(LONGEST, 1), 1, MOST_PROMPTS)
DOMAIN_SUM = row(text(LONGEST, 1), whole(0, MOST_PROMPTS))  # of activations: domain, number of prompts
SCHEMA = fields(
    {"model": MODEL, "prompts": FINGERPRINT, "prompt_ids": _NAMES, "domains": _NAMES, "settings": table()},
    {
        "activations": listed(DOMAIN_SUM),
        "arrays": listed(text(100)),
        "groups": listed(text()),
        "ties": listed(text()),
        "set_aside": TEXTS,
        "tasks": listed(text(LONGEST)),
        "pooled": POOLED,
    },
)
FORM = Form(("strata-recording",), 3, "recording", "Record again.", RecordingError, SCHEMA)
_KEYS = re.compile(rb"[0-9A-Za-z_-]+")
ALWAYS = ("cosine", "token_counts", "nonfinite")  # measures that every version recorded


@dataclass(frozen=True)
class Activations:
    """Mean layer outputs of one domain by modality, summed over prompts: what a pooled cross-modal distance needs.

    Attributes:
        sums: (2, n_layers, hidden) float64, over prompts, of a prompt's mean raw layer output; vision tokens, then text tokens.
        norms: (n_layers,) float64, over prompts, of a prompt's mean norm of the layer output.
        n_prompts: prompts that had tokens of both modalities.
    """

    sums: np.ndarray
    norms: np.ndarray
    n_prompts: int

    def __add__(self, other: Activations) -> Activations:
        return Activations(self.sums + other.sums, self.norms + other.norms, self.n_prompts + other.n_prompts)


@dataclass(frozen=True, eq=False)
class Recording:
    """The measures of every decoder layer of one model, from one forward pass per prompt.

    Attributes:
        model: the recorded model.
        prompts: fingerprint of the prompt set.
        prompt_ids, domains: one entry per prompt, in prompt order.
        rows: (n_prompts,) structured array of `measures.row_type`: every measure of every prompt; may be a memory map.
        settings: everything else that the numbers depend on (image bound, batch size, whether attention maps were read).
        activations: by domain, the sums behind the pooled cross-modal distance; empty where none were recorded.
        maps: the file or folder that holds the prompts' token maps; None where none were kept.
        lacks: measures that its file lacks, as of a version that did not know them; their values are NaN, or 0 where they count.
        groups: of each prompt the name of its group (see `PromptSet.groups`); () where each is alone in its group, or none was kept.
        ties: what the prompts share with others beside their keys: pictures, groups (`Groups.known`).
        tasks: of each prompt its task, "" where it has none; () where none has one, or none was kept (see `tasks.task_similarity`).
        set_aside: the prompts that were asked for but refused by the model or its processor, by id, each with the reason. They are in no
            other attribute, except that `prompts` is the fingerprint of all prompts asked for.
        pooled: by domain and task, the mean streams of its prompts (`pooled.pooled_rows`); empty where none were recorded.
    """

    model: ModelInfo
    prompts: str
    prompt_ids: tuple[str, ...]
    domains: tuple[str, ...]
    rows: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    activations: dict[str, Activations] = field(default_factory=dict)
    maps: Path | None = None
    lacks: tuple[str, ...] = ()
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    ties: tuple[str, ...] = field(default=(), kw_only=True)
    set_aside: dict[str, str] = field(default_factory=dict, kw_only=True)
    tasks: tuple[str, ...] = field(default=(), kw_only=True)
    pooled: dict[Task, Pooled] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        return brief(self, self.model.name, counted(self.n_layers, "layer"), prompts_in(self.domains))

    def __post_init__(self) -> None:
        n_prompts = len(self.prompt_ids)
        expected = row_type(self.model.n_layers, self.model.n_tower)
        if self.rows.dtype != expected or self.rows.shape != (n_prompts,):
            raise RecordingError(
                f"The recording does not fit together: expected {n_prompts} rows for {self.model.n_layers} layers, got "
                f"{len(self.rows)} rows of another kind or number. Record again."
            )
        if len(self.domains) != n_prompts or n_prompts == 0:
            raise RecordingError(
                f"A recording needs a domain for each prompt: got {len(self.domains)} for {n_prompts}."
            )
        for what, given in (("group", self.groups), ("task", self.tasks)):
            if len(given) not in (0, n_prompts):
                raise RecordingError(
                    f"The recording does not fit together: expected a {what} for each of {n_prompts} prompts, got {len(given)}. "
                    "Record again."
                )

    @property
    def n_layers(self) -> int:
        return self.model.n_layers

    @property
    def n_prompts(self) -> int:
        return len(self.prompt_ids)

    @cached_property
    def domain_names(self) -> tuple[str, ...]:
        """Return the domains in order of first appearance."""
        return tuple(dict.fromkeys(self.domains))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the unique key of each prompt, as in `PromptSet.row_keys`; "" in files of version 1."""
        return tuple(key.decode() for key in self.rows["key"])

    def has(self, measure: str) -> bool:
        """Return whether the measure was recorded for at least one prompt (attention maps are an option)."""
        return measure not in self.lacks and bool(np.isfinite(self.rows[measure]).any())

    def prompt_values(
        self, measure: str, domain: str | None = None, token_group: str = "all", *, which: int | None = None
    ) -> np.ndarray:
        """Return the (n_prompts of the domain, n_layers) values of a measure, one row per prompt; NaN where not measured.

        Args:
            measure: a key of `MEASURES` that has a layer axis.
            domain: None for all prompts.
            token_group: ignored by measures without groups.
            which: the index on the last axis, for measures that have a third one or shares (`DELTAS`, `SHARES`, `HSIC_PARTS`).

        Raises:
            RecordingError: an unknown measure, domain or token group, or a measure that needs `which`.
        """
        axes = MEASURES[measure].axes if measure in MEASURES else ()
        if "layer" not in axes:
            known = [name for name, row in MEASURES.items() if "layer" in row.axes]
            raise RecordingError(f"Unknown measure of layers: expected one of {known}, got {measure!r}.")
        group = _group(token_group)
        values = self.rows[measure][self.rows_of(domain)]
        if "group" in axes:
            values = values[:, :, group]
        if values.ndim == 3:
            if which is None or not 0 <= which < values.shape[2]:
                raise RecordingError(
                    f"{measure!r} has {values.shape[2]} values per layer: expected `which` below that."
                )
            values = values[:, :, which]
        return values

    def layer_values(
        self, measure: str, domain: str | None = None, token_group: str = "all", *, which: int | None = None
    ) -> np.ndarray:
        """Return the (n_layers,) float64 mean of a measure over prompts with equal weight (see `prompt_values`).

        A prompt without the token group, or on which the layer did not run, is left out; none left gives NaN. A number that
        is not finite although the layer ran stays in, and makes the mean NaN.
        """
        values = self.prompt_values(measure, domain, token_group, which=which).astype(np.float64)
        return mean_of_prompts(values, self.counts_in(measure, domain, token_group, which=which))

    def counts_in(
        self, measure: str, domain: str | None = None, token_group: str = "all", *, which: int | None = None
    ) -> np.ndarray:
        """Return the (n_prompts of the domain, n_layers) bool: whether a prompt counts in a layer's mean of the measure."""
        values = self.prompt_values(measure, domain, token_group, which=which)
        broken = self.rows["nonfinite"][self.rows_of(domain)] > 0
        grouped = "group" in MEASURES[measure].axes
        has = self.has_group(domain, token_group)[:, None] if grouped else np.ones((len(values), 1), bool)
        return has & (broken | ~np.isnan(values.astype(np.float64)))

    def prompt_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_prompts of the domain, n_layers) mean cosines, one row per prompt; NaN rows lack the group.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        return self.prompt_values("cosine", domain, token_group)

    def layer_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_layers,) float64 mean cosine of each layer's true input and raw output, in [-1, 1].

        The mean is over a prompt's tokens, then over prompts with equal weight, also for `domain=None`. Prompts without the
        token group, or on which the layer did not run, are left out; none left gives NaN.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        return self.layer_values("cosine", domain, token_group)

    def prompt_spans(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_prompts of the domain, n_layers (n_layers + 1) / 2) span cosines: the triangle above the diagonal.

        `measures.from_triangle(values, n_layers + 1)` makes matrices of them.
        """
        return self.rows["span"][self.rows_of(domain), _group(token_group)]

    def span_similarity(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_layers + 1, n_layers + 1) mean cosines between the streams entering layer i and layer j.

        Index n_layers is the raw output of the last layer. Where DeepStack adds vision features after layer l, `[l, l + 1]`
        and `layer_similarity()[l]` differ: the layer does not make the addition.

        Raises:
            RecordingError: an unknown domain or token group.
        """
        values = self.prompt_spans(domain, token_group)
        has = self.has_group(domain, token_group)[:, None]
        broken = (self.rows["nonfinite"][self.rows_of(domain)] > 0).any(axis=1, keepdims=True)
        return from_triangle(mean_of_prompts(values, has & (broken | ~np.isnan(values))), self.n_layers + 1)

    def linear_cka(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return the (n_layers,) float64 linear CKA of layer input and output, by the unbiased minibatch estimator.

        The three HSIC values are summed over prompts (one prompt is one batch, our choice), then divided; a prompt with fewer
        than four tokens of the group has none and is left out. Near 1: the layer keeps what tells tokens apart.
        """
        own, cross, other = (
            self.layer_values("hsic", domain, token_group, which=part) for part in range(len(HSIC_PARTS))
        )
        return cka(own, cross, other)

    def cross_modal_distance(self, domain: str | None = None) -> np.ndarray:
        """Return the (n_layers,) distance of the mean vision and text outputs over all prompts, relative to the mean norm.

        The pooled form of arXiv:2605.25842; `layer_values("cross_modal")` is the mean of each prompt's own distance.
        """
        domains = self.domain_names if domain is None else (domain,)
        self.rows_of(domain)
        parts = [self.activations[name] for name in domains if name in self.activations]
        count = sum(part.n_prompts for part in parts)
        if not count:
            return np.full(self.n_layers, np.nan)
        gap = sum(part.sums[0] - part.sums[1] for part in parts) / count
        return np.linalg.norm(gap, axis=-1) / (sum(part.norms for part in parts) / count)

    def token_map(self, prompt: int) -> TokenMap:
        """Return every token's cosines of one prompt, by its index; raises RecordingError where none were kept."""
        if self.maps is None:
            raise RecordingError("This recording has no token maps. Record again with token maps.")
        return read_map(self.maps, self.keys[prompt], self.n_layers)

    def prompts_with(self, domain: str | None = None, token_group: str = "all") -> int:
        """Return how many prompts of the domain have at least one token of the group."""
        return int(self.has_group(domain, token_group).sum())

    def has_group(self, domain: str | None = None, token_group: str = "all") -> np.ndarray:
        """Return for each prompt of the domain whether it has a token of the group (bool)."""
        return self.rows["token_counts"][self.rows_of(domain), _group(token_group)] > 0

    def rows_of(self, domain: str | None) -> np.ndarray:
        """Return the indices of a domain's prompts (None: of all), ascending; raises RecordingError for an unknown domain."""
        if domain not in self._places:
            raise RecordingError(
                f"No such domain in the recording: expected one of {list(self.domain_names)}, got {short(repr(domain), 80)}. Name one."
            )
        return self._places[domain]

    @cached_property
    def _places(self) -> dict[str | None, np.ndarray]:
        names = np.array(self.domains)
        return {None: np.arange(self.n_prompts)} | {name: np.flatnonzero(names == name) for name in self.domain_names}


def _group(token_group: str) -> int:
    if token_group not in TOKEN_GROUPS:
        raise RecordingError(f"Unknown token group: expected one of {list(TOKEN_GROUPS)}, got {token_group!r}.")
    return TOKEN_GROUPS.index(token_group)


def cka(own: np.ndarray, cross: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return linear CKA of summed or averaged HSIC values; NaN where one of them is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((own > 0) & (other > 0), cross / np.sqrt(own * other), np.nan)


def save_recording(recording: Recording, path: Path) -> Path:
    """Write the recording as one `.npz` without pickle, an array a measure; the file appears whole or not at all. Returns the path."""
    kept = [name for name in ("key", *MEASURES) if name not in recording.lacks]
    pooled, pooled_arrays = pooled_content(recording.pooled)
    payload = {
        "model": asdict(recording.model),
        "prompts": recording.prompts,
        "prompt_ids": recording.prompt_ids,
        "domains": recording.domains,
        "settings": recording.settings,
        "activations": [[name, part.n_prompts] for name, part in recording.activations.items()],
        "arrays": kept,
        "groups": recording.groups,
        "ties": recording.ties,
        "set_aside": recording.set_aside,
        "tasks": recording.tasks,
        "pooled": pooled,
    }
    arrays = {name: recording.rows[name] for name in kept} | pooled_arrays
    for number, part in enumerate(recording.activations.values()):
        arrays[f"sums_{number}"], arrays[f"norms_{number}"] = part.sums, part.norms
    return FORM.save_arrays(path, payload, arrays, lambda file: append_maps(recording.maps, file, recording.keys))


def open_recording(path: Path) -> Recording:
    """Open a recording written by `save_recording`; needs neither torch nor the model.

    A measure that the file lacks is NaN (`Recording.lacks`). Files of versions 1 and 2, which version 0.1 wrote, open too.

    Raises:
        RecordingError: the file is missing, cut short, too large, of another kind or of a newer version.
    """

    def recording_from(content: dict[str, Any], arrays: Arrays) -> Recording:
        model, n_prompts = ModelInfo.from_json(content["model"]), len(content["prompt_ids"])
        refuse_larger(n_prompts * row_type(model.n_layers, model.n_tower).itemsize, MAX_BYTES)
        names = content.get("arrays", ())
        parts = PARTS[content["schema_version"]](arrays, names, n_prompts, row_type(model.n_layers, model.n_tower))
        if not parts.keys() >= set(ALWAYS):
            raise ValueError(f"expected the measures {', '.join(ALWAYS)}, got {', '.join(parts)}")
        recording = Recording(
            model=model,
            prompts=content["prompts"],
            prompt_ids=tuple(content["prompt_ids"]),
            domains=tuple(content["domains"]),
            rows=filled_rows(n_prompts, model.n_layers, parts, model.n_tower),
            settings=content["settings"],
            activations=activations(content.get("activations", []), arrays, model.n_layers),
            maps=Path(path) if arrays.more else None,
            lacks=tuple(name for name in MEASURES if name not in parts),
            groups=tuple(map(str, content.get("groups", ()))),
            ties=tuple(map(str, content.get("ties", ()))),
            set_aside=content.get("set_aside", {}),
            tasks=tuple(content.get("tasks", ())),
            pooled=pooled_of(content.get("pooled", []), arrays, model.n_layers),
        )
        _check_parts(recording, arrays.more)
        return recording

    return FORM.open_arrays(path, recording_from)


def _check_parts(recording: Recording, more: tuple[str, ...]) -> None:
    """Check that the parts of a recording from a file fit together; raises ValueError where they do not."""
    different(list(recording.prompt_ids), "ids of prompts")
    check_ranges(recording.rows)
    keys = recording.rows["key"].tolist()
    if any(keys):  # version 1 has none
        different(keys, "keys of prompts")
        if not all(_KEYS.fullmatch(key) for key in keys):
            raise ValueError("expected letters and digits as the keys of prompts, got others")
    if not set(more) <= {map_name(key) for key in recording.keys}:
        raise ValueError("expected the token maps of its prompts, got other files")
    for name, part in recording.activations.items():
        whole(0, recording.domains.count(name))(part.n_prompts, f"the activations of {name[:60]!r}")


def activations(names: list[list[Any]], arrays: Arrays, n_layers: int) -> dict[str, Activations]:
    """Return the activations in a file by domain, from (domain, number of prompts); raises ValueError for others."""
    different([name for name, _ in names], "domains of activations")
    by_domain = {}
    for number, (name, n_prompts) in enumerate(names):
        sums = arrays.get(f"sums_{number}", np.float64, (2, n_layers, None))
        by_domain[name] = Activations(sums, arrays.get(f"norms_{number}", np.float64, (n_layers,)), n_prompts)
    return by_domain
