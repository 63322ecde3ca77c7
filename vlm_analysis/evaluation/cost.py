"""The Cost: the weights and the time that an edit saves, as a value. Opens without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_content, edit_for
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.tower import tower_dropped
from vlm_analysis.errors import EvaluationError
from vlm_analysis.guard.schema import TEXTS, fields, listed, maybe, number, table, text, whole
from vlm_analysis.model_info import MOST_LAYERS, SCHEMA as MODEL, ModelInfo
from vlm_analysis.saved import Form
from vlm_analysis.words import brief, counted

_SERIES = listed(listed(number(), 1), 2, 2)
_PAIR = listed(whole(1), 2, 2)
_COUNTS = dict.fromkeys(("threads", "n_prompts", "new_tokens"), whole(1))
SCHEMA = fields(
    {
        "mask": table(),
        "model": MODEL,
        "device": text(200),
        "prompt_tokens": number(1),
        **_COUNTS,
        **dict.fromkeys(("n_parameters", "n_bytes"), _PAIR),
        **dict.fromkeys(("prefill_ms", "tokens_per_s", "layer_shares"), _SERIES),
    },
    {
        "set_aside": TEXTS,
        **dict.fromkeys(("prefill_flops", "encoder_flops"), maybe(listed(number(0), 2, 2))),
        "cache_bytes": maybe(listed(whole(), 2, 2)),
        "encoder_shares": listed(number(0), most=MOST_LAYERS),
    },
)
FORM = Form(("strata-cost",), 1, "cost", "Measure again.", EvaluationError, SCHEMA)
PHASES = ("prefill", "decode")
N_RESAMPLES = 500
MOST_ROUNDS = 1000
ROUNDS = 7  # by default
COLUMNS = ("budget", "phase", "value", "low", "high", "expected", "more")
WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_PLAIN = ("device", "threads", "n_prompts", "prompt_tokens", "new_tokens", "n_parameters", "n_bytes")
_ARRAYS = ("prefill_ms", "tokens_per_s", "layer_shares")
_MORE = ("prefill_flops", "encoder_flops", "cache_bytes")  # pairs that may be missing
_LIMITS = {  # no measured number lies beyond them
    "threads": (1, 1e5),
    "n_prompts": (1, 1e5),
    "prompt_tokens": (1, 1e8),
    "new_tokens": (2, 1e8),
    "n_parameters": (1, 1e15),
    "n_bytes": (1, 1e16),
    "prefill_ms": (1e-6, 1e9),
    "tokens_per_s": (1e-6, 1e9),
    "layer_shares": (0, 1),
}


@dataclass(frozen=True, eq=False)
class Cost:
    """The weights and times of the dense and the edited model, batch 1; in pairs the dense model is first.

    Attributes:
        edit, model: the edit, and the dense model.
        device, threads: where it was measured.
        n_prompts, prompt_tokens: number of prompts, and their mean number of tokens, image tokens included.
        new_tokens: tokens written for each.
        n_parameters: (2,) parameters of a checkpoint, shared weights counted once.
        n_bytes: (2,) bytes of its tensors.
        prefill_ms: (2, rounds) float64, mean over prompts of one forward pass with its cache, vision tower included.
        tokens_per_s: (2, rounds) float64, tokens written a second, greedily and with the cache, after the first one.
        layer_shares: (2, n_layers) float64, each layer's share of the time of a dense prefill and of a dense decoded token.
        set_aside: the prompts that were chosen but refused by the model, by id, each with the reason; they are not timed.
        prefill_flops: (2,) FLOPs of a prefill of the mean prompt in the decoder layers, by formula (see `flops.prefill_flops`); None where
            the model's configuration does not tell, and in costs of version 0.1.
        encoder_flops: (2,) the same in the layers of the vision encoder (see `flops.encoder_flops`); None where there is none that can lose
            layers, where its class runs them in a way that is not known, and in costs of version 0.1.
        encoder_shares: (n_tower,) float64, the share of the time of a dense prefill that each layer of the vision encoder takes; (0,) where
            it was not measured.
        cache_bytes: (2,) bytes of the cache behind a prefill, mean over prompts; None where it was not measured.

    Raises:
        EvaluationError: numbers of another shape, not finite or beyond what can be measured, or more than 1000 rounds.
    """

    edit: Edit
    model: ModelInfo
    device: str
    threads: int
    n_prompts: int
    prompt_tokens: float
    new_tokens: int
    n_parameters: tuple[int, int]
    n_bytes: tuple[int, int]
    prefill_ms: np.ndarray
    tokens_per_s: np.ndarray
    layer_shares: np.ndarray
    set_aside: dict[str, str] = field(default_factory=dict, kw_only=True)
    prefill_flops: tuple[float, float] | None = field(default=None, kw_only=True)
    encoder_flops: tuple[float, float] | None = field(default=None, kw_only=True)
    encoder_shares: np.ndarray = field(default_factory=lambda: np.zeros(0), kw_only=True)
    cache_bytes: tuple[int, int] | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        where = f"{counted(self.rounds, 'round')} on {self.device}"
        return brief(self, self.model.name, repr(self.edit), counted(self.n_prompts, "prompt"), where)

    def __post_init__(self) -> None:
        for name in (*_ARRAYS, "encoder_shares"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        for name in ("n_parameters", "n_bytes"):
            object.__setattr__(self, name, tuple(int(number) for number in getattr(self, name)))
        for name in _MORE:
            pair = getattr(self, name)
            fits = pair is None or (len(pair) == 2 and all(0 <= one <= 1e30 for one in pair))
            _refuse_unless(fits, f"two numbers from 0 on as {name}, or none", pair)
            object.__setattr__(self, name, None if pair is None else tuple(pair))
        shapes = {"n_parameters": (2,), "n_bytes": (2,), "layer_shares": (2, self.edit.n_layers)}
        shapes |= dict.fromkeys(("prefill_ms", "tokens_per_s"), (2, self.rounds))
        for name, (least, most) in _LIMITS.items():
            numbers, shape = np.asarray(getattr(self, name), dtype=np.float64), shapes.get(name, ())
            _refuse_unless(numbers.shape == shape and numbers.size > 0, f"{name} of shape {shape}", numbers.shape)
            within = bool(((numbers >= least) & (numbers <= most)).all())
            _refuse_unless(within, f"{name} from {least:g} to {most:g}", "others")
        _refuse_unless(self.rounds <= MOST_ROUNDS, f"{MOST_ROUNDS} rounds at most", self.rounds)
        if reason := self.edit.refuses(self.model):
            raise EvaluationError(f"A cost cannot be made. {reason}")
        shares, n_tower = self.encoder_shares, 0 if self.model.tower is None else self.model.tower.n_layers
        _refuse_unless(
            shares.shape in {(0,), (n_tower,)}, f"encoder_shares of shape ({n_tower},) or none", shares.shape
        )
        _refuse_unless(bool(((shares >= 0) & (shares <= 1)).all()), "encoder_shares from 0 to 1", "others")
        prefill, decode = self.layer_shares.sum(axis=1)
        total = float(max(prefill + shares.sum(), decode))
        _refuse_unless(total < 1, "layer_shares and encoder_shares that sum to less than 1", total)

    @property
    def rounds(self) -> int:
        """Return the number of rounds."""
        return self.prefill_ms.shape[-1] if self.prefill_ms.ndim else 0

    @property
    def way(self) -> tuple[object, ...]:
        """Return how it was measured: device, threads, prompts and tokens; costs compare where this is the same."""
        return self.device, self.threads, self.n_prompts, self.prompt_tokens, self.new_tokens

    def ms(self, phase: str) -> np.ndarray:
        """Return (2, rounds) milliseconds: of a prefill, or of a decoded token."""
        return self.prefill_ms if phase == "prefill" else 1e3 / self.tokens_per_s

    def expected_share(self, phase: str, edit: Edit | None = None) -> float:
        """Return the linear line: the share of the dense time that stays if the dropped layers save just what they take.

        Of another `edit` of the same model too, by the same measured times of its layers. Those of the vision encoder take time of a
        prefill only; where that was not measured (`encoder_shares`), they save nothing here.
        """
        edit = edit or self.edit
        saved = self.layer_shares[PHASES.index(phase), list(edit.gone)].sum()
        if phase == "prefill" and len(self.encoder_shares):
            saved += self.encoder_shares[list(tower_dropped(edit.changes))].sum()
        return float(1 - saved)

    @property
    def all_flops(self) -> tuple[float, float] | None:
        """Return the FLOPs of a prefill in the decoder layers and, where known, in those of the vision encoder; None as `prefill_flops`."""
        if self.prefill_flops is None or self.encoder_flops is None:
            return self.prefill_flops
        (dense, edited), (more, more_edited) = self.prefill_flops, self.encoder_flops
        return dense + more, edited + more_edited

    @property
    def expected_prefill_ms(self) -> float:
        """Return the dense median without the dropped layers' shares."""
        return float(np.median(self.prefill_ms[0])) * self.expected_share("prefill")

    @property
    def expected_tokens_per_s(self) -> float:
        """Return the dense median, as it would be without the dropped layers' shares of a token's time."""
        return float(np.median(self.tokens_per_s[0])) / self.expected_share("decode")


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def speedup(cost: Cost, phase: str, *, share: float = 0.9, seed: int = 0) -> tuple[float, float, float]:
    """Return how many times as fast the pruned model is, and the interval that holds `share` of 500 bootstrap draws over rounds.

    The median of the rounds' own ratios: dense and pruned take turns within a round, so what slows a round slows both.
    """
    dense, pruned = cost.ms(phase)
    ratios = dense / pruned
    indices = np.random.default_rng(seed).integers(len(ratios), size=(N_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[indices], axis=1), [(1 - share) / 2, (1 + share) / 2])
    return float(np.median(ratios)), float(low), float(high)


def ratio_of_medians(cost: Cost, phase: str) -> float:
    """Return how many times as fast the pruned model is by the medians of all rounds, which other work on the machine moves apart."""
    dense, pruned = np.median(cost.ms(phase), axis=1)
    return float(dense / pruned)


def was_disturbed(cost: Cost, phase: str) -> bool:
    """Return whether the ratio of the medians is outside of the speedup's interval and more than 5 % from the speedup."""
    value, low, high = speedup(cost, phase)
    return not min(low, 0.95 * value) <= ratio_of_medians(cost, phase) <= max(high, 1.05 * value)


def cost_frame(costs: Sequence[Cost]) -> pd.DataFrame:
    """Return time relative to the dense model, one row per Cost and phase, in the columns `COLUMNS`.

    `value` is the median of the rounds' ratios, `low` and `high` are their quartiles, `expected` is the linear line.
    `budget` counts dropped decoder layers, and `more` says what else the edit does, "" where that is nothing.
    """
    rows = []
    for cost in costs:
        more = " and ".join(change.words() for change in cost.edit.changes if not isinstance(change, Drop))
        for phase in PHASES:
            dense, pruned = cost.ms(phase)
            low, value, high = quartiles(pruned / dense)
            rows.append((cost.edit.budget, phase, value, low, high, cost.expected_share(phase), more))
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["phase", "budget"], ignore_index=True)


def weights_without(model: ModelInfo, edit: Edit) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return parameters and bytes of the dense and the pruned model, as counted when it was loaded.

    Bytes are None where the precision's width is not known.

    Raises:
        EvaluationError: the parameters were not counted.
    """
    if len(model.layer_parameters) != edit.n_layers or not model.n_parameters:
        raise EvaluationError(f"The parameters of {model.name}'s layers are not known. Load the model.")
    dense = model.n_parameters
    pruned = dense - edit.saved_parameters(model)
    width = WIDTHS.get(model.dtype)
    return (dense, pruned), None if width is None else (dense * width, pruned * width)


def flops_without(model: ModelInfo, edit: Edit) -> tuple[int, int]:
    """Return the FLOPs of one token in the decoder layers of the dense and the pruned model: two for each of their parameters.

    What attention does with the tokens before, the embedding, the head and the vision tower are not in it; of layers with experts all
    experts are. The factor is that of arXiv:2001.08361, section 2.1.

    Raises:
        EvaluationError: the parameters were not counted.
    """
    weights_without(model, edit)  # refuses what was not counted
    layers, saved = sum(model.layer_parameters), sum(sum(one.saved_by_layer(model).values()) for one in edit.changes)
    return 2 * layers, 2 * (layers - saved)


def save_cost(cost: Cost, path: Path) -> Path:
    """Write the Cost as JSON; the file appears whole or not at all. Returns the path."""
    numbers = {name: getattr(cost, name) for name in _PLAIN} | {name: getattr(cost, name).tolist() for name in _ARRAYS}
    about = {"mask": edit_content(cost.edit), "model": asdict(cost.model), "set_aside": cost.set_aside}
    about |= {name: getattr(cost, name) for name in _MORE} | {"encoder_shares": cost.encoder_shares.tolist()}
    return FORM.save(path, {**about, **numbers})


def open_cost(path: Path) -> Cost:
    """Open a Cost written by `save_cost`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version.
    """
    return FORM.open(path, _cost_of)


def _cost_of(content: dict[str, Any]) -> Cost:
    model = ModelInfo.from_json(content["model"])
    return Cost(
        edit=edit_for(content["mask"], model),
        model=model,
        set_aside=content.get("set_aside", {}),
        encoder_shares=content.get("encoder_shares", []),
        **{name: content[name] for name in (*_PLAIN, *_ARRAYS, *_MORE) if name in content or name not in _MORE},
    )


def _refuse_unless(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise EvaluationError(f"A cost cannot be made: expected {expected}, got {got}. Measure again.")
