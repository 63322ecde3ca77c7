"""The table of criteria; each computes one number per decoder layer of a Recording.

Notation: s_d(l) is the mean cosine of layer l's input and output over the prompts of domain d; z_d is s_d z-scored over all
layers (population standard deviation; no spread gives 0). "our choice" marks what no paper states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlm_analysis.selection.criteria import similarity as by
from vlm_analysis.selection.criteria.query import ScoreQuery

Needs = Literal["recording", "domains", "attention", "damage", "nothing"]
Drop = Literal["highest", "lowest"]


@dataclass(frozen=True)
class Criterion:
    """A row of the table.

    Attributes:
        needs: a recording; one with several domains; one with attention maps; measured damage; or nothing.
        drop: which end is dropped first.
        values: returns (..., n_layers) for a query; None for the random criterion.
        takes: the arguments of `score_layers` that change the numbers.
        measure: the measure that the recording must hold; "" for the cosine, which every recording holds.
        over: the fixed token group; "" for that of the query.
    """

    title: str
    source: str
    formula: str
    needs: Needs
    drop: Drop
    values: Callable[[ScoreQuery], np.ndarray] | None
    takes: tuple[str, ...] = ("token_group", "domain")
    measure: str = ""
    over: str = ""


def _damage_kl(query: ScoreQuery) -> np.ndarray:
    assert query.damage is not None
    return query.damage.mean("kl_to_dense", query.target, query.sample)


def _damage_nll(query: ScoreQuery) -> np.ndarray:
    assert query.damage is not None
    return query.damage.mean("answer_nll", query.target, query.sample)


_DOMAINS = "domain-aware selection, arXiv:2603.20275"
_LLM_DROP = "LLM-Drop, arXiv:2406.15786, which drops the sub-layer; that the layer goes with it is our choice"
_SKIP = "Skip-It?, arXiv:2509.25584; a ranking by it instead of a threshold is our choice"
_CROSS_MODAL = (
    "measure of µCRASP, arXiv:2605.25842, which protects layers where it is high when it cuts their width, and drops none; to drop those "
    "where it is low is our choice"
)
_WEIGHTED = ("target", "weight", "token_group")

CRITERIA: dict[str, Criterion] = {
    "block-influence": Criterion(
        "Block influence",
        "ShortGPT, arXiv:2403.03853",
        "1 − mean cos(x_l, y_l)",
        "recording",
        "lowest",
        by.block_influence,
    ),
    "target-aware": Criterion(
        "Target-aware", _DOMAINS, "z_target(l)", "domains", "highest", by.target_aware, ("target", "token_group")
    ),
    "others-aware": Criterion(
        "Others-aware",
        f"{_DOMAINS}; mean over several other domains is our choice",
        "z over layers of the mean of s_d(l) over d ≠ target",
        "domains",
        "highest",
        by.others_aware,
        ("target", "token_group"),
    ),
    "mixed-others": Criterion(
        "Mixed, weight on the others",
        f"{_DOMAINS}, weight 0.7; z over all layers is our choice, the preset takes the pruneable ones",
        "(1 − w) · z_target(l) + w · z_others(l)",
        "domains",
        "highest",
        by.mixed_others,
        _WEIGHTED,
    ),
    "mixed": Criterion(
        "Mixed, weight on the target",
        f"our choice, after {_DOMAINS}, which gives the weight to the others",
        "w · z_target(l) + (1 − w) · z_others(l)",
        "domains",
        "highest",
        by.mixed,
        _WEIGHTED,
    ),
    "worst-case": Criterion(
        "Worst case over domains",
        f"{_DOMAINS}; the minimum is our choice",
        "min over domains of z_d(l)",
        "domains",
        "highest",
        by.worst_case,
        ("token_group",),
    ),
    "contrast": Criterion(
        "Contrast of domains",
        f"our choice, on the scores of {_DOMAINS}",
        "z_target(l) − z_others(l): what the target can spare and the others cannot",
        "domains",
        "highest",
        by.contrast,
        ("target", "other", "token_group"),
    ),
    "important-tokens": Criterion(
        "Similarity of important tokens",
        "Short-LVLM, arXiv:2507.23362; the share of tokens and each layer's own map are our choices",
        "mean cos(x_l, y_l) over the share of tokens with the largest attention",
        "attention",
        "highest",
        by.important_tokens,
        ("share", "domain"),
        "important_cosine",
    ),
    "linear-cka": Criterion(
        "Linear CKA",
        "arXiv:1905.00414; minibatches and unbiased HSIC of arXiv:2010.15327; one prompt as one batch is our choice",
        "mean HSIC(x_l, y_l) / √(mean HSIC(x_l, x_l) · mean HSIC(y_l, y_l)), means over prompts",
        "recording",
        "highest",
        by.linear_cka,
        measure="hsic",
    ),
    "attention-similarity": Criterion(
        "Attention similarity",
        _LLM_DROP,
        "mean cos(x_l, m_l), m behind the attention",
        "recording",
        "highest",
        by.attention_similarity,
        measure="attention_cosine",
    ),
    "mlp-similarity": Criterion(
        "MLP similarity",
        _LLM_DROP,
        "mean cos(m_l, y_l), m before the MLP",
        "recording",
        "highest",
        by.mlp_similarity,
        measure="mlp_cosine",
    ),
    "skip-geometric": Criterion(
        "Geometric redundancy of vision",
        _SKIP,
        "mean 1 − cos(x_l, y_l) over vision tokens",
        "recording",
        "lowest",
        by.skip_geometric,
        ("domain",),
        over="vision",
    ),
    "skip-proximal": Criterion(
        "Proximal redundancy of vision",
        _SKIP,
        "share of vision tokens with 1 − cos(x_l, y_l) ≥ δ",
        "recording",
        "lowest",
        by.skip_proximal,
        ("delta", "domain"),
        "changed",
        "vision",
    ),
    "cross-modal": Criterion(
        "Cross-modal distance",
        f"{_CROSS_MODAL}, and so is each prompt's own distance",
        "mean over prompts of ‖mean y_l over vision − mean y_l over text‖ / mean ‖y_l‖",
        "recording",
        "lowest",
        by.cross_modal,
        ("domain",),
        "cross_modal",
    ),
    "cross-modal-pooled": Criterion(
        "Cross-modal distance, pooled",
        f"{_CROSS_MODAL}; its spread is unknown, as only sums over prompts are kept",
        "‖mean y_l over vision − mean y_l over text‖ / mean ‖y_l‖, means over all prompts",
        "recording",
        "lowest",
        by.cross_modal_pooled,
        ("domain",),
    ),
    "damage-kl": Criterion(
        "Measured damage, KL",
        "leaving out one layer at a time, as in SLEB, arXiv:2402.09025; KL is our choice",
        "mean KL(dense ‖ without layer l) over the answer",
        "damage",
        "lowest",
        _damage_kl,
        ("target",),
    ),
    "damage-nll": Criterion(
        "Measured damage, answer NLL",
        "leaving out one layer at a time, as in SLEB, arXiv:2402.09025, and Shortened LLaMA, arXiv:2402.02834",
        "mean answer NLL without layer l − that of the dense model (without a dense evaluation: as it stands)",
        "damage",
        "lowest",
        _damage_nll,
        ("target",),
    ),
    "random": Criterion(
        "Random", "baseline: a seeded draw", "uniform in [0, 1)", "nothing", "highest", None, ("seed",)
    ),
}

DEFAULTS = (
    "block-influence",
    "target-aware",
    "mixed-others",
    "worst-case",
    "important-tokens",
    "linear-cka",
    "cross-modal",
    "damage-kl",
)
"""Those that are shown where no others are asked for."""
