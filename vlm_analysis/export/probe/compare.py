"""Compare what a server answers with the probe of an exported folder: equal, close or broken, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_analysis import words
from vlm_analysis.export.probe.server import TIMEOUT_S, Reply, Server
from vlm_analysis.export.probe.value import VARIANTS, Probe, ProbePrompt, bare, open_probe, picture
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.places import parts_of

EQUAL, CLOSE, BROKEN = "equal", "close", "broken"
SAME_NATS = 1e-3
"""Log-probabilities of the first token that differ by less are equal: float32 on another machine."""
CLOSE_NATS = 0.1
"""Those that differ by less are close: another precision (our choice). Then another answer may be due to rounding."""
_SHARE = 0.5  # of the prompts that tell a broken model; more of its answers name it


@dataclass(frozen=True)
class Compared:
    """One answer of a server beside the exported model's.

    Attributes:
        difference: of the log-probabilities of the first token, in nats, where both have one for the same token; None elsewhere.
        like: the broken models that give this very answer, where it is not the exported model's.
    """

    id: str
    question: str
    expected: str
    got: str
    verdict: str
    difference: float | None = None
    like: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbeResult:
    """What a probe of a server found.

    Attributes:
        model: the name that was asked for; "" for the only one of a server that lists none.
        verdict: "equal": all answers are. "close": all are equal or close. "broken": at least one is another answer.
        reasons: sentences: how many are equal, and what the others look like.
        tells: what the probe could tell (`Probe.words`).
    """

    url: str
    model: str
    verdict: str
    reasons: tuple[str, ...]
    prompts: tuple[Compared, ...]
    tells: str


def probe_server(
    url: str,
    folder: Path | str,
    *,
    model: str = "",
    timeout_s: float = TIMEOUT_S,
    on_progress: Progress = no_progress,
) -> ProbeResult:
    """Ask an OpenAI-compatible server the probe of an exported folder, and compare its answers.

    Args:
        url: of the server, as "http://127.0.0.1:8000".
        folder: the exported folder.
        model: the name under which it is served; by default what the server lists, or none where it has no list.
        timeout_s: seconds that one answer may take.
        on_progress: called before each prompt.

    Raises:
        ExportError: the folder holds no probe, the server cannot be reached or refuses, or this is a shared dashboard.
    """
    server = Server(url, timeout_s)
    folder = Path(folder).expanduser()
    probe = open_probe(folder)
    name = model or server.model(str(folder))
    replies = []
    for number, prompt in enumerate(probe.prompts):
        on_progress(number, len(probe.prompts), f"asking {server.base}")
        pictures = [picture(folder, one) for one in prompt.images]
        replies.append(server.ask(name, parts_of(prompt.question, len(pictures)), pictures, probe.max_new_tokens))
    return compare_replies(probe, replies, url=server.base, model=name)


def compare_replies(probe: Probe, replies: Sequence[Reply], *, url: str = "", model: str = "") -> ProbeResult:
    """Return how the replies of a server, one for each prompt of a probe, compare with it."""
    rows = tuple(_compared(probe, prompt, reply) for prompt, reply in zip(probe.prompts, replies, strict=True))
    verdict = next((one for one in (BROKEN, CLOSE) if any(row.verdict == one for row in rows)), EQUAL)
    return ProbeResult(url, model, verdict, _reasons(probe, rows), rows, probe.words())


def _compared(probe: Probe, prompt: ProbePrompt, reply: Reply) -> Compared:
    got = without_opening(reply.text, probe.opening)
    difference = _difference(prompt, reply)
    same = bare(got) == bare(prompt.answer)
    like = () if same else tuple(name for name, other in prompt.otherwise.items() if bare(got) == bare(other))
    if same:
        verdict = EQUAL if difference is None or difference <= SAME_NATS else CLOSE
    else:
        verdict = CLOSE if difference is not None and difference <= CLOSE_NATS and not like else BROKEN
    return Compared(prompt.id, prompt.question, prompt.answer, got, verdict, difference, like)


def _difference(prompt: ProbePrompt, reply: Reply) -> float | None:
    if prompt.first is None or reply.token is None or reply.logprob is None:
        return None
    if reply.token.strip() != prompt.first.token.strip():
        return None
    return abs(reply.logprob - prompt.first.logprob)


def without_opening(answer: str, opening: str) -> str:
    """Return an answer without what the chat template writes ahead of it; blanks in that are not compared."""
    left = "".join(opening.split())
    for index, character in enumerate(answer):
        if not left:
            return answer[index:].strip()
        if character.isspace():
            continue
        if character != left[0]:
            return answer.strip()
        left = left[1:]
    return "" if opening.strip() and not left else answer.strip()


def _reasons(probe: Probe, rows: Sequence[Compared]) -> tuple[str, ...]:
    n_equal, others = sum(row.verdict == EQUAL for row in rows), [row for row in rows if row.verdict != EQUAL]
    reasons = [f"{n_equal} of {words.counted(len(rows), 'answer')} {'is' if n_equal == 1 else 'are'} equal."]
    far = [row.difference for row in others if row.verdict == CLOSE and row.difference is not None]
    if far:
        reasons.append(
            f"{len(far)} {'is' if len(far) == 1 else 'are'} close: the log-probability of the first token is within {CLOSE_NATS} nats or "
            f"the answer is the same; the largest difference is {max(far):.3g} nats."
        )
    for variant, what in VARIANTS.items():
        tell = [prompt.id for prompt in probe.prompts if prompt.tells(variant)]
        like = [row.id for row in others if variant in row.like]
        if tell and len(like) > _SHARE * len(tell):
            reasons.append(f"{len(like)} of the {len(tell)} answers that tell it are those of the model when {what}.")
    unlike = [row for row in others if row.verdict == BROKEN and not row.like]
    if unlike:
        first, n = unlike[0], words.counted(len(unlike), "answer")
        reasons.append(
            f"{n} differ{'s' if len(unlike) == 1 else ''} otherwise, as to prompt {first.id!r}: expected {first.expected[:100]!r}, got "
            f"{first.got[:100]!r}. Look for another precision, chat template or picture size, or other weights."
        )
    return tuple(reasons)
