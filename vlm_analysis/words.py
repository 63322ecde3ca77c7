"""Words that the whole package shares: names of token groups, titles of metrics, phrases about layers, durations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vlm_analysis.errors import short

MOST_LISTED = 10  # things that one message or list names
TOKEN_GROUPS = ("vision", "text", "answer", "last", "all")
METRIC_TITLES = {
    "exact_match": "Exact match",
    "answer_nll": "Answer NLL",
    "token_agreement": "Token agreement",
    "kl_to_dense": "KL to dense",
    "normalised_match": "Normalised match",
    "numeric_match": "Numeric match",
    "choice_match": "Choice match",
    "choice_match_norm": "Choice match, per token",
}


def total_of_domains(domains: Iterable[str], name: str = "all domains") -> str:
    """Return what stands for all domains together in a table or list: a name that is none of theirs.

    >>> total_of_domains(["math"]), total_of_domains(["all domains"])
    ('all domains', 'all domains (total)')
    """
    taken = set(domains)
    return name if name not in taken else total_of_domains(taken, f"{name} (total)")


def joined(words: Iterable[object]) -> str:
    """Return "1, 2 and 3"."""
    *first, last = [str(word) for word in words] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def some_of(texts: Iterable[str], most: int, number: int | None = None, between: str = ", ") -> str:
    """Return the first texts, and how many more there are; of `number` where not all are at hand.

    >>> some_of("abcdefgh", 6), some_of("ab", 6, 10)
    ('a, b, c, d, e, f and 2 more', 'a, b and 8 more')
    """
    texts = list(texts)
    named, number = texts[:most], len(texts) if number is None else number
    more = f" and {number - len(named):,} more" if named and number > len(named) else ""
    return between.join(named) + more


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "prompt"), counted(1200, "prompt")
    ('1 prompt', '1,200 prompts')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def prompts_in(domains: Iterable[str]) -> str:
    """Return how many prompts there are, and their domains, of which one is given for each prompt.

    >>> prompts_in(["math", "general", "math"])
    '3 prompts of math, general'
    """
    all_of_them = list(domains)
    return f"{counted(len(all_of_them), 'prompt')} of {some_of(dict.fromkeys(all_of_them), 4)}"


def brief(value: object, *facts: object) -> str:
    """Return a value's `repr` in two lines at most: its type, and what matters of it.

    >>> brief(1.5, "pocket-vl", counted(16, "layer"))
    'float(pocket-vl, 16 layers)'
    """
    return f"{type(value).__name__}({short(', '.join(short(fact, 100) for fact in facts), 200)})"


def any_of(least: int, most: int = 0) -> str:
    """Return "any of 2 to 5 accepted answers"; "the answer" where there is one at most.

    >>> any_of(3), any_of(2, 5), any_of(0)
    ('any of 3 accepted answers', 'any of 2 to 5 accepted answers', 'the answer')
    """
    if max(least, most) < 2:
        return "the answer"
    return f"any of {least}{f' to {most}' if most > least else ''} accepted answers"


def in_groups(n_prompts: int, n_groups: int) -> str:
    """Return how many prompts there are, and in how many groups where some share one.

    >>> in_groups(45, 45), in_groups(231, 24)
    ('45 prompts', '231 prompts in 24 groups')
    """
    return counted(n_prompts, "prompt") + f" in {counted(n_groups, 'group')}" * (n_groups < n_prompts)


def by_reason(reasons: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the layers of each reason, in the order in which reasons come.

    >>> by_reason({0: "first", 2: "DeepStack", 3: "DeepStack"})
    {'first': [0], 'DeepStack': [2, 3]}
    """
    found: dict[str, list[int]] = {}
    for layer, reason in reasons.items():
        found.setdefault(reason, []).append(layer)
    return found


def layers(numbers: Iterable[int]) -> str:
    """Return "layer 4" or "layers 4 and 7", ascending."""
    ordered = sorted(numbers)
    return f"layer{'' if len(ordered) == 1 else 's'} {joined(ordered)}"


def consecutive(numbers: Iterable[int]) -> list[tuple[int, ...]]:
    """Return the runs of consecutive numbers among ascending ones.

    >>> consecutive((2, 3, 7))
    [(2, 3), (7,)]
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [tuple(run) for run in runs]


def sentence(text: str) -> str:
    """Return the text with its first letter capitalised."""
    return text[:1].upper() + text[1:]


def set_aside_lines(set_aside: Mapping[str, str], n_used: int | None = None) -> list[str]:
    """Return which prompts were set aside and why, in lines; none where none was.

    Args:
        set_aside: the reason of each prompt, which names it, by its id.
        n_used: how many prompts were not set aside, where that is known.
    """
    if not set_aside:
        return []
    count = len(set_aside)
    of = "" if n_used is None else f" of {count + n_used}"
    total = count if n_used is None else count + n_used
    head = f"{count}{of} prompt{'' if total == 1 else 's'} {'was' if count == 1 else 'were'} set aside:"
    more = [f"and {count - MOST_LISTED} more."] if count > MOST_LISTED else []
    return [head, *list(set_aside.values())[:MOST_LISTED], *more]


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(4.2), duration(130), duration(3900)
    ('4 s', '2 min 10 s', '1 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
