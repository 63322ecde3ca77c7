"""The Basis: how many prompts and groups scores are computed from, and whether these are enough to tell layers apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.selection.criteria.draws import Units
from vlm_analysis.words import counted, in_groups


@dataclass(frozen=True)
class Basis:
    """The prompts that scores are computed from.

    Attributes:
        prompts, groups: the number of prompts of each domain, and of the groups that these are in.
        n_groups: the number of groups of all prompts.
        df: degrees of freedom of a difference of two scores.
    """

    prompts: dict[str, int]
    groups: dict[str, int]
    n_groups: int
    df: int

    @property
    def n_prompts(self) -> int:
        return sum(self.prompts.values())

    @property
    def tells(self) -> bool:
        """Return whether there are enough groups for a verdict."""
        return self.df >= LEAST_GROUPS - 1

    @property
    def words(self) -> str:
        """Return "45 prompts" or "231 prompts in 24 groups"."""
        return in_groups(self.n_prompts, self.n_groups)

    @property
    def too_few(self) -> str:
        """Return why there is no verdict; "" where there can be one."""
        if self.tells:
            return ""
        each = " in each domain" if len(self.groups) > 1 else ""
        had = ", ".join(f"{name} {counted(n, 'group')}" for name, n in self.groups.items()) or "none"
        return (
            f"No verdict: it takes {LEAST_GROUPS} groups of prompts{each}, each with pictures of its own; here are {self.words} ({had}). "
            "Add prompts on other pictures."
        )


def basis_of(domains: Sequence[str], units: Units, rows: Sequence[int], *, compares: bool) -> Basis:
    """Return the Basis of some prompts.

    Args:
        domains, units: of all prompts.
        rows: the prompts that count.
        compares: whether the score compares domains; then the one with fewest groups limits it, else all groups count.
    """
    names = list(dict.fromkeys(domains[row] for row in rows))
    by_domain = {name: [row for row in rows if domains[row] == name] for name in names}
    groups = {name: units.count(its) for name, its in by_domain.items()}
    n_groups, n_strata = units.count(rows), len({units.strata[row] for row in rows})
    df = min(groups.values(), default=1) - 1 if compares else n_groups - n_strata
    return Basis({name: len(its) for name, its in by_domain.items()}, groups, n_groups, df)
