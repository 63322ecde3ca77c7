"""What an Answer says: its headline, the titles of its charts, what stands behind its speed and its choice, and where it comes from."""

from __future__ import annotations

import numpy as np

from vlm_analysis.assets import BUNDLED_MODELS
from vlm_analysis.evaluation.telling import telling_line, title_of
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.answer import TOLERANCE, Answer, Kept
from vlm_analysis.words import counted, joined, layers, sentence

MOST_NAMED = 3  # domains in a headline
_KEEPS = {
    "token_agreement": "{} of the dense model's tokens",
    "kl_to_dense": "{} of the dense model's predictions",
    "answer_nll": "{} of the likelihood of an answer's tokens",
}


def model_title(name: str) -> str:
    """Return a model's name for a sentence: that of a bundled one, or the last part of a hub id or folder.

    >>> model_title("pocket-vl"), model_title("Qwen/Qwen3-VL-2B-Instruct")
    ('Pocket-VL', 'Qwen3-VL-2B-Instruct')
    """
    return BUNDLED_MODELS.get(name) or name.rstrip("/").rsplit("/", 1)[-1] or name


def headline(answer: Answer) -> str:
    """Return the answer in one sentence: what can go, what stays of the answers, and what is saved."""
    name, of = model_title(answer.model.name), f"{answer.budget} of {answer.model.n_layers} layers"
    price = f"costs {name} answers" if answer.metric == "exact_match" else f"changes what {name} says"
    lead = f"{name} can lose {of}" if answer.is_within else f"Losing {of} {price}"
    saved = f"{_percent(answer.saved)} fewer parameters"
    return f"{lead}: {', '.join(filter(None, (_stays(answer), saved, speed_words(answer))))}."


def speed_words(answer: Answer) -> str:
    """Return how fast the edited model is: "1.2 × as fast", with "expected" before it until the mask is timed; "" where unknown."""
    if answer.speed is None:
        return ""
    times = answer.speed.times
    number = f"{times:.2f}" if times < 1.15 else f"{times:.2g}"
    return f"{'' if answer.speed.is_measured else 'expected '}{number} × as fast"


def speed_line(answer: Answer) -> str:
    """Return where the speed comes from."""
    if answer.speed is None:
        return "No time was measured, so no speed is shown."
    if answer.speed.is_measured:
        return "The speed is that of a forward pass, timed on this machine with this mask."
    return "The speed is that of a forward pass, expected from the layers' own times; time the mask under Evaluate to measure it."


def choice_line(answer: Answer) -> str:
    """Return on which prompts the mask was chosen and reported, with what that does to the numbers."""
    n_chosen, n_reported = answer.chosen_on[1], answer.reported_on[1]
    if answer.has_halves and not answer.n_shared:
        return f"Chosen on {counted(n_chosen, 'prompt')}, reported on {counted(n_reported, 'other')}."
    if answer.has_halves:
        return (
            f"{answer.n_shared} of the {n_reported} reported prompts are among those the mask was chosen on, or share a picture with one, "
            "which flatters the numbers."
        )
    if answer.n_shared:
        return f"Chosen and reported on the same prompts ({n_reported}), which flatters the numbers."
    return f"Layers were scored on other prompts, but the best mask was picked on the {n_reported} reported, which flatters it."


def tolerance_line(answer: Answer) -> str:
    """Return how the mask and the recommended budget are chosen; the rule is ours."""
    what = "right answers" if answer.metric == "exact_match" else title_of(answer.metric)
    return (
        f"At each budget the best mask is the one that keeps most of the dense model's {what} on the prompts it is chosen on (mean over "
        f"domains). The budget shown first is the largest that keeps at least {_percent(TOLERANCE)} there (our choice). Intervals are 90 %."
    )


def retention_title(answer: Answer) -> str:
    """Return what the curve shows: which domain breaks first, and from where on."""
    what, first = "answers" if answer.metric == "exact_match" else title_of(answer.metric), None
    curve = answer.curve[answer.curve["budget"] > 0].dropna(subset=["value"])
    if curve.empty:
        return "The dense model gives no answer that could be kept"
    for _, here in curve.groupby("budget"):
        if here["value"].min() < TOLERANCE:
            first = here.sort_values("value").iloc[0]
            break
    kept = f"{_percent(TOLERANCE)} of its {what}"
    if first is None:
        return f"Every domain keeps {kept} or more, up to {_percent(curve['saved'].max())} fewer parameters"
    return f"{sentence(str(first['domain']))} breaks first: less than {kept} from {_percent(first['saved'])} fewer parameters on"


def similarity_title(recording: Recording, most: int = 3) -> str:
    """Return which layers change their input least, as a mean over domains."""
    mean = np.nanmean([recording.layer_similarity(domain) for domain in recording.domain_names], axis=0)
    least = np.argsort(-mean, kind="stable")[:most]
    return f"{sentence(layers(map(int, least)))} change their input least"


def difference_title(recording: Recording) -> str:
    """Return which layer each of two domains needs more than the other; "" where there are not two."""
    if len(recording.domain_names) != 2:
        return ""
    one, other = recording.domain_names
    gap = recording.layer_similarity(one) - recording.layer_similarity(other)
    return f"Layer {int(np.nanargmin(gap))} works harder on {one}, layer {int(np.nanargmax(gap))} on {other}"


def examples_title(answer: Answer) -> str:
    """Return how many answers are lost and gained: "4 of 90 answers are lost, none is gained"."""
    lost, of, gained = (sum(getattr(one, name) for one in answer.kept) for name in ("stay", "of", "gained"))
    if answer.metric != "exact_match":
        return "Where the two models say the same, and where they part"
    words = "none is gained" if not gained else f"{gained} {'is' if gained == 1 else 'are'} gained"
    return f"{of - lost or 'None'} of {counted(of, 'answer')} {'is' if of - lost < 2 else 'are'} lost, {words}"


def provenance(answer: Answer) -> list[tuple[str, str]]:
    """Return where the answer comes from, as pairs of a name and a text."""
    pairs = [
        ("Model", f"{answer.model.name}, fingerprint {answer.model.fingerprint[:16]}"),
        ("Mask", f"{layers(answer.edit.dropped)}, by “{answer.method}”"),
        ("Chosen on", f"{counted(answer.chosen_on[1], 'prompt')}, fingerprint {answer.chosen_on[0][:16]}"),
        ("Reported on", f"{counted(answer.reported_on[1], 'prompt')}, fingerprint {answer.reported_on[0][:16]}"),
        (
            "Compared",
            f"{counted(answer.others['method'].nunique(), 'method')} at {counted(len(answer.budgets), 'budget')}",
        ),
        ("Kept on the choosing prompts", _counts(answer.chosen) or _shares(answer.chosen)),
        ("Rule", tolerance_line(answer)),
        ("Speed", speed_line(answer)),
    ]
    line = telling_line(answer.metric)
    return [*pairs, *([("Score", line)] if line else [])]


def _stays(answer: Answer) -> str:
    """Return what stays of the answers, by domain, or of all with the worst domain where there are many."""
    known = [one for one in answer.kept if not np.isnan(one.value)]
    if not known:
        return "the dense model gives no answer that could be kept"
    if answer.metric != "exact_match":
        shown = known if len(known) <= MOST_NAMED else [min(known, key=lambda one: one.value)]
        first, *rest = [f"{_percent(one.value)} {{}}in {one.domain}" for one in shown]
        what = _KEEPS[answer.metric].partition("{} ")[2] + " "
        least = "at least " * (len(known) > MOST_NAMED)
        return f"it keeps {least}{joined([first.format(what), *(one.format('') for one in rest)])} answers"
    return f"{_counts(answer.kept)} answers stay"


def _counts(kept: tuple[Kept, ...]) -> str:
    known = [one for one in kept if one.of]
    if len(known) <= MOST_NAMED:
        return joined(f"{one.stay} of {one.of} {one.domain}" for one in known) if known else ""
    worst = min(known, key=lambda one: one.value)
    stay, of = sum(one.stay for one in known), sum(one.of for one in known)
    return f"{stay} of {of} ({worst.stay} of {worst.of} {worst.domain})"


def _shares(kept: tuple[Kept, ...]) -> str:
    return joined(f"{_percent(one.value)} {one.domain}" for one in kept if not np.isnan(one.value))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"  # a line must not part them
