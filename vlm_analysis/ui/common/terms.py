"""The words of Strata, explained in one table: the Glossary page, docs/glossary.md and the explanations on screen are made of it."""

from __future__ import annotations

import html
import re
import zlib
from dataclasses import dataclass

import streamlit as st

STYLE = """<style>
.strata-explained { position: relative; margin: 0; font-size: 0.875rem; opacity: 0.85; }
.strata-term { text-decoration: underline dotted; text-underline-offset: 0.2em; cursor: help; }
.strata-term > span { display: none; }
.strata-term:is(:hover, :focus):not(.strata-closed) > span {
  display: block; position: absolute; left: 0; top: 100%; z-index: 1000; max-width: min(34rem, 100%); box-sizing: border-box;
  padding: 0.5rem 0.75rem; border: 1px solid #8a96a3; border-radius: 0.5rem; color: #1b2733; background: #f4f6f8;
}
.strata-explained:has(.strata-term:is(:hover, :focus)) { opacity: 1; }
</style>"""
CLOSING = """<script>
if (!window.strataClosing) {
  window.strataClosing = true;
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" ? document.querySelectorAll(".strata-term:is(:hover, :focus)") : [];
    open.forEach((one) => one.classList.add("strata-closed"));
  });
  for (const entered of ["mouseover", "focusin"]) {
    document.addEventListener(entered, (event) => event.target.closest?.(".strata-term")?.classList.remove("strata-closed"));
  }
}
</script>"""
"""Escape closes an open explanation, until pointer or focus come to it anew; on every page once, in its first line."""
_MARK = re.compile(r"\[\[([a-z_]+)(?:\|([^\]]*))?\]\]")


@dataclass(frozen=True)
class Term:
    """A word with its meaning.

    Attributes:
        title: the word as it stands on screen.
        meaning: one or two sentences.
        source: the paper that it comes from; "" for words of Strata.
    """

    title: str
    meaning: str
    source: str = ""


SECTIONS: dict[str, dict[str, Term]] = {
    "Models and edits": {
        "layer": Term(
            "Decoder layer",
            "One of the equal stages of the language model, with attention and an MLP. It adds to the stream that runs through it, so "
            "the model still runs when it is left out. Layers count from 0.",
        ),
        "dense": Term("Dense model", "The model as it was loaded, with all its layers. Nothing changes it."),
        "edited": Term(
            "Edited model", "The dense model with an edit applied. It is called pruned where layers are dropped."
        ),
        "edit": Term("Edit", "What is done to a dense model, as a value that can be saved, evaluated and exported."),
        "mask": Term("Mask", "An edit that only drops layers: the set of layers that are left out."),
        "budget": Term("Budget", "How much is dropped: a number of layers, or a share of parameters, time or FLOPs."),
        "ratio": Term("Ratio", "The number of dropped layers over the number of all layers."),
        "protected": Term(
            "Protected layer",
            "A layer that should stay, since dropping it mostly breaks the model: the first, the last, and those after which DeepStack "
            "adds vision features. You may let it go.",
        ),
        "locked": Term(
            "Locked layer",
            "A layer that stays: dropping it would crash the model or make no sense, or you locked it yourself.",
        ),
        "deepstack": Term(
            "DeepStack",
            "Some models add vision features to the stream again behind several early layers.",
            "arXiv:2406.04334",
        ),
        "fingerprint": Term(
            "Fingerprint",
            "A hash of a model's weights or of a set's prompts. It tells which saved work belongs to which.",
        ),
        "neuron": Term(
            "MLP neuron",
            "A row of the gate and of the up-projection of a layer's MLP, with its column of the down-projection.",
        ),
        "kv_group": Term("Attention group", "A key-value head with the query heads that read it."),
        "project": Term(
            "Project",
            "A study with prompts, recordings, masks and results of its own. The loaded model belongs to none.",
        ),
    },
    "Prompts": {
        "prompt": Term("Prompt", "One or more images with a question, and the answer where there is one."),
        "answer": Term(
            "Answer",
            "The reference that a response is scored against. Where a prompt has several accepted answers, any of them counts.",
        ),
        "pivot": Term(
            "Pivot",
            'A mark of a step in an answer, such as "step 2", "therefore" or an equals sign. What acts near it counts more for width.',
            "µCRASP, arXiv:2605.25842",
        ),
        "response": Term("Response", "What the model itself wrote, by greedy decoding."),
        "domain": Term("Domain", "What a prompt is about, such as math. Results are shown for each domain."),
        "task": Term("Task", "The level below a domain, such as counting."),
        "group": Term(
            "Group",
            "Prompts that share a picture. They are one draw: intervals count groups, and halves never part one.",
        ),
        "set_aside": Term(
            "Set aside",
            "A prompt that the processor or the model refuses. It counts nowhere, and is named with the reason.",
        ),
        "token_group": Term(
            "Token group", "The tokens of a prompt over which a measure is taken: all, vision, text, answer or last."
        ),
        "tokens_all": Term("Token group all", "Every prompt token: vision and text."),
        "tokens_vision": Term("Token group vision", "Positions that receive image features."),
        "tokens_text": Term("Token group text", "All other prompt tokens, template and delimiters included."),
        "tokens_answer": Term("Token group answer", "The reference answer and its end token, seen in the same pass."),
        "tokens_last": Term("Token group last", "The last prompt token, from which the answer starts."),
    },
    "Measuring layers": {
        "recording": Term(
            "Recording",
            "All measures of every layer on every prompt of a set, taken in one pass each. It opens without the model.",
        ),
        "measure": Term("Measure", "One number that a recording holds of each layer, such as the layer similarity."),
        "similarity": Term(
            "Layer similarity",
            "The cosine of what enters a layer and what leaves it, as a mean over tokens, then over prompts. Near 1 the layer changes "
            "its input little.",
            "ShortGPT, arXiv:2403.03853",
        ),
        "block_influence": Term(
            "Block influence",
            "1 − layer similarity. The layer with the lowest is dropped first.",
            "ShortGPT, arXiv:2403.03853",
        ),
        "angular_distance": Term(
            "Angular distance",
            "arccos of the cosine over π, in [0, 1]: how far a span of layers turns the stream.",
            "arXiv:2403.17887",
        ),
        "answer-probe": Term(
            "Answer probe",
            "A linear regression that names the answer from the mean vision or text state before and behind a layer, asked on prompts that "
            "it was not fitted on.",
        ),
        "damage": Term(
            "Damage",
            "The measured change of the output when one layer is left out: KL to dense, or the increase of the answer NLL.",
            "arXiv:2402.09025",
        ),
    },
    "Choosing layers": {
        "criterion": Term("Criterion", "Scores layers: one number for each, and which end is dropped first."),
        "strategy": Term("Strategy", "Turns scores into an edit: which layers go at a budget."),
        "method": Term("Method", "A criterion and a strategy together."),
        "width": Term(
            "Width",
            "How many neurons and attention groups a layer has. A narrow layer keeps some of them, and all layers stay.",
            "arXiv:2605.25842",
        ),
        "candidate": Term(
            "Candidate", "A mask that a method or a search proposes. It changes nothing until you take it."
        ),
        "search": Term("Search", "A strategy that measures the model again after each step."),
        "preset": Term("Preset", "All choices of a form set at once, by a paper or by the time that it may take."),
    },
    "Results": {
        "evaluation": Term("Evaluation", "The scores of an edit, or of the dense model, on every prompt of a set."),
        "exact_match": Term(
            "Exact match",
            "Share of prompts whose whole answer, its end included, the model reproduces token by token under greedy decoding.",
        ),
        "answer_nll": Term(
            "Answer NLL",
            "Mean negative log-likelihood of the answer's tokens, in nats a token. Lower is better; it moves before answers break.",
        ),
        "token_agreement": Term(
            "Token agreement",
            "Share of answer positions at which the pruned model's first choice is the dense model's.",
        ),
        "kl_to_dense": Term(
            "KL to dense",
            "Mean Kullback-Leibler divergence KL(dense ‖ pruned) over the answer's positions, in nats. 0 for the dense model.",
        ),
        "normalised_match": Term(
            "Normalised match",
            "Share of prompts whose response is the answer once case, articles and punctuation are gone.",
        ),
        "numeric_match": Term(
            "Numeric match",
            "As the normalised match, but a number within 5 % of the answer's counts as equal, and 50% is 0.5 (as in ChartQA).",
            "arXiv:2203.10244",
        ),
        "choice_match": Term(
            "Choice match", "Share of prompts with choices whose answer is the choice of the highest likelihood."
        ),
        "choice_match_norm": Term(
            "Choice match, per token",
            "The choice match by the mean log-likelihood per token, which does not favour short choices.",
        ),
        "retention": Term(
            "Retention",
            "Pruned exact match over dense exact match. 100 % means as many right answers as the dense model, not always the same: "
            "answers won make up for answers lost.",
        ),
        "interval": Term(
            "Interval",
            "Where a number would mostly fall with other prompts of the same kind: 90 % intervals over groups of prompts. Few groups "
            "give a wide one, or none.",
        ),
        "repair": Term(
            "Repair",
            "What dropped layers did, fitted by a linear map of the layer before them and folded into its weights: in seconds, and nothing "
            "is trained.",
            "after arXiv:2505.02819",
        ),
        "tuning": Term(
            "Tuning", "A short training of low-rank updates of the layers that are left, merged into their weights."
        ),
        "ledger": Term(
            "Ledger",
            "What a cut model gets back: the dense, the cut and each recovered model on prompts that nothing was learnt on, and beside "
            "them the dense model tuned alike.",
        ),
        "comparison": Term("Comparison", "Many masks evaluated on the same prompts, by methods and budgets."),
        "contest": Term(
            "Contest",
            "The best edit of each kind at one budget, side by side: dropped layers, narrow layers, vision tokens that skip layers, mixes.",
        ),
        "regime": Term(
            "Regime",
            "What matters at a budget: the ranking of layers, their spacing, or neither where methods come to the same.",
            "after arXiv:2603.20275",
        ),
        "front": Term(
            "Front", "The masks that no other beats: none keeps as much with as few parameters, or in as little time."
        ),
        "recommended": Term(
            "Recommended budget",
            "The largest budget whose best mask keeps 95 % on the prompts that it was chosen on. Its numbers are measured on others.",
        ),
        "prefill": Term("Prefill", "The pass over images and question, before the first token is written."),
        "decode": Term("Decode", "Writing the response token by token, after the prefill."),
    },
    "Export": {
        "checkpoint": Term("Checkpoint", "A folder with the edited model that plain transformers loads."),
        "proof": Term(
            "Proof",
            "A fresh process loads the checkpoint; its logits and an answer are compared with the evaluated model's, bit for bit.",
        ),
        "probe": Term(
            "Probe", "Up to 8 prompts with the checkpoint's answers, to ask a server whether it answers the same."
        ),
    },
}
TERMS = {key: term for section in SECTIONS.values() for key, term in section.items()}


def explained(text: str, more: str = "", *, is_first: bool = False) -> None:
    """Draw small text in which `[[mask]]` or `[[mask|masks]]` is underlined by dots, and explained on hover, touch and focus.

    Args:
        text: no words of users; `more`, which follows it as it stands, may hold some.
        is_first: whether it is the first line of its page.
    """
    drawn = explained_html(text, more)
    if is_first:
        st.html(drawn + CLOSING, unsafe_allow_javascript=True)
    else:
        st.html(drawn)


def explained_html(text: str, more: str = "") -> str:
    """Return the text as HTML with the terms that it marks explained, then `more`; all else in them is escaped.

    Raises:
        KeyError: the text marks a word that is not in the table.
    """
    line = f"{zlib.crc32(text.encode()):08x}"  # a term may stand in several lines of a page
    marked = _MARK.sub(lambda mark: _term(mark, line), html.escape(text))
    return f'<p class="strata-explained">{marked}{html.escape(more)}</p>{STYLE}'


def _term(mark: re.Match[str], line: str) -> str:
    key, shown = mark.groups()
    about, name = f"{TERMS[key].title}: {TERMS[key].meaning}", f"term-{key}-{line}"
    return (
        f'<span class="strata-term" tabindex="0" aria-describedby="{name}">{shown or TERMS[key].title.lower()}'
        f'<span id="{name}" role="tooltip">{html.escape(about)}</span></span>'
    )


def in_markdown(section: str, find: str = "") -> str:
    """Return the terms of a section as Markdown, a paragraph each; of those only that hold `find`, where it is given."""
    terms = [
        one for one in SECTIONS[section].values() if find.lower() in f"{one.title} {one.meaning} {one.source}".lower()
    ]
    return "\n\n".join(f"**{one.title}**: {one.meaning}{f' ({one.source})' * bool(one.source)}" for one in terms)
