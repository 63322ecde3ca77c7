"""The maps of a repair in closed form, from float64 sums over tokens: values and pure functions, without a model.

What is known: M (tokens, hidden), what the linear module adds to the stream, and D (tokens, hidden), what the dropped layers added behind
it. A map A of the module's output turns M into M Aᵀ, so the stream gets M (A − I)ᵀ more; the best A makes that D. A part of D that is no
linear map of M stays lost, such as one that is linear in the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_analysis.errors import EditError, short
from vlm_analysis.words import TOKEN_GROUPS

IDENTITY, ZERO = "identity", "zero"
MLP, ATTENTION = "mlp", "attention"
FITTED = ("vision", "text", "answer")  # token groups; each token that is not padding is in one of them


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, in float64.

    Attributes:
        gram: (hidden, hidden) MᵀM.
        cross: (hidden, hidden) MᵀD.
        gap: (hidden, hidden) DᵀD.
        n_tokens: how many tokens were summed over.
    """

    gram: np.ndarray
    cross: np.ndarray
    gap: np.ndarray
    n_tokens: int


@dataclass(frozen=True)
class Options:
    """How a map is made of sums; see `repair`.

    Raises:
        EditError: there is no such way, or a number is out of range.
    """

    how: str = "ridge"
    penalty: float = 1e-3
    toward: str = IDENTITY
    k: int = 4
    sign: int = 1
    tokens: tuple[str, ...] = FITTED
    weight: str = MLP

    def __post_init__(self) -> None:
        checks: dict[str, tuple[Any, bool, str]] = {
            "how": (self.how, self.how in HOWS, f"one of {', '.join(HOWS)}"),
            "penalty": (self.penalty, _is_number(self.penalty) and 0 <= self.penalty < np.inf, "a number from 0 on"),
            "toward": (self.toward, self.toward in (IDENTITY, ZERO), f"{IDENTITY} or {ZERO}"),
            "k": (self.k, _is_number(self.k) and self.k == int(self.k) and self.k > 0, "a whole number from 1 on"),
            "sign": (self.sign, self.sign in (1, -1), "1 or -1"),
            "weight": (
                self.weight,
                self.weight == MLP or (self.weight == ATTENTION and self.how == "subspace"),
                f"{MLP}, or with how='subspace' {ATTENTION},",
            ),
            "tokens": (
                self.tokens,
                not isinstance(self.tokens, str) and bool(self.tokens) and set(self.tokens) <= set(TOKEN_GROUPS),
                f"some of {', '.join(TOKEN_GROUPS)}",
            ),
        }
        for name, (got, is_right, expected) in checks.items():
            if not is_right:
                raise EditError(f"There is no such repair: expected {expected} as {name}, got {short(repr(got))}.")
        object.__setattr__(self, "tokens", tuple(dict.fromkeys(self.tokens)))

    @property
    def used(self) -> dict[str, Any]:
        """Return the way and the options that it reads."""
        names = {"ridge": ("penalty", "toward"), "subspace": ("k", "sign", "weight"), "scale": ("penalty", "toward")}[
            self.how
        ]
        return {"how": self.how, **{name: getattr(self, name) for name in names}, "tokens": list(self.tokens)}


def solve(sums: Sums, options: Options) -> np.ndarray:
    """Return the map: A of (hidden, hidden), or the factor of each channel, (hidden,).

    Raises:
        EditError: the sums do not decide it: there are too few tokens.
    """
    return HOWS[options.how](sums, options)


def gap_left(sums: Sums, mapping: np.ndarray) -> float:
    """Return the squared distance between what the layers added and what the map adds, over that to adding nothing; on these tokens."""
    more = (np.diag(mapping) if mapping.ndim == 1 else mapping) - np.eye(len(mapping))
    whole = float(np.trace(sums.gap))
    left = whole - 2 * float(np.sum(more * sums.cross.T)) + float(np.sum((more @ sums.gram) * more))
    return max(0.0, left) / whole if whole else 0.0


def _ridge(sums: Sums, options: Options) -> np.ndarray:
    """Return the least squares map with a pull to the identity, or to zero as ReplaceMe (arXiv:2505.02819) has it."""
    size = len(sums.gram)
    pull = options.penalty * np.trace(sums.gram) / size
    if not pull and sums.n_tokens < size:
        raise EditError(
            f"A map of {size} channels is not decided: expected {size:,} tokens or more without a penalty, got {sums.n_tokens:,}. Take "
            "more prompts, or a penalty such as 0.001."
        )
    target = sums.cross if options.toward == IDENTITY else sums.cross + sums.gram
    pulled = sums.gram + pull * np.eye(size)
    found = np.linalg.solve(pulled, target) if pull else np.linalg.lstsq(sums.gram, target, rcond=None)[0]
    mapping: np.ndarray = found.T + np.eye(size) if options.toward == IDENTITY else found.T
    return mapping


def _scale(sums: Sums, options: Options) -> np.ndarray:
    """Return the least squares factor of each channel, with the pull of `_ridge`; 1 for a channel that is always zero."""
    gram, cross = sums.gram.diagonal(), sums.cross.diagonal()
    pull = options.penalty * gram.mean()
    target = cross if options.toward == IDENTITY else cross + gram
    found = np.divide(target, gram + pull, out=np.zeros_like(target), where=gram + pull > 0)
    factors: np.ndarray = found + 1 if options.toward == IDENTITY else np.where(gram > 0, found, 1.0)
    return factors


def _subspace(sums: Sums, options: Options) -> np.ndarray:
    """Return I ± V Vᵀ, V being the k directions in which the layers added most (Short-LVLM, arXiv:2507.23362).

    The paper has (I + V Vᵀ) W and says neither k nor which W: k, the down-projection or the attention's output projection, and the other
    sign are our choices.
    """
    size = len(sums.gap)
    if options.k > size:
        raise EditError(
            f"There are no {options.k} directions: expected at most {size}, the channels of the stream. Take a smaller k."
        )
    directions = np.linalg.eigh(sums.gap)[1][:, size - int(options.k) :]
    mapping: np.ndarray = np.eye(size) + options.sign * directions @ directions.T
    return mapping


HOWS: dict[str, Callable[[Sums, Options], np.ndarray]] = {"ridge": _ridge, "subspace": _subspace, "scale": _scale}
"""The ways to repair in closed form, by name."""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
