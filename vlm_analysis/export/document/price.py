"""What an edit saves in money, at the user's price of tokens.

The price of a token is taken to scale with the time of a forward pass. That is our assumption: who sells tokens sets prices otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from vlm_analysis.errors import ExportError
from vlm_analysis.selection.compared.answer import Answer

MOST_PRICE = 1e6
ASSUMPTION = "The price of a token is taken to scale with the time of a forward pass; that is our assumption, no offer of anybody."


@dataclass(frozen=True)
class Price:
    """What a million tokens cost the user with the dense model.

    Attributes:
        prompt, response: of a million tokens of prompts, and of responses.
        currency: as it stands behind the numbers; may be "".

    Raises:
        ExportError: a price is no number from 0 to 1,000,000, both are 0, or the currency is longer than 10 characters.
    """

    prompt: float
    response: float
    currency: str = ""

    def __post_init__(self) -> None:
        prices = (self.prompt, self.response)
        if not all(math.isfinite(one) and 0 <= one <= MOST_PRICE for one in prices) or not any(prices):
            raise ExportError(
                f"The price of a million tokens is not understood: expected numbers from 0 to {MOST_PRICE:,.0f}, not both 0, got "
                f"{self.prompt:g} and {self.response:g}. Give what you pay."
            )
        if len(self.currency) > 10:
            raise ExportError(
                f"The currency is too long: expected 10 characters at most, got {len(self.currency)}. Write EUR, USD or the like."
            )


def priced(answer: Answer, price: Price) -> tuple[str, str, pd.DataFrame] | None:
    """Return what the edit saves in a sentence, what that rests on, and the prices, a row a kind; None where no speed is known."""
    if answer.speed is None:
        return None
    both, times = price.prompt + price.response, answer.speed.times
    dense, edited = _money(both, price), _money(both / times, price)
    sentence = f"At your price, a million tokens in and a million out would cost {edited} instead of {dense}"
    rows = [
        (f"a million tokens of {kind}", _money(one, price), _money(one / times, price))
        for kind, one in (("prompts", price.prompt), ("responses", price.response))
    ]
    speed = f"The speed is {'measured' if answer.speed.is_measured else 'expected'}: {times:.2f} × as fast."
    return sentence, f"{ASSUMPTION} {speed}", pd.DataFrame(rows, columns=["", "dense", "edited"])


def _money(amount: float, price: Price) -> str:
    return f"{amount:.{2 if amount >= 0.1 else 4}f}\u00a0{price.currency}".strip()
