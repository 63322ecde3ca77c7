"""The Probe: a few prompts with the exported model's own answers, and what two broken models answer instead; and its file.

`probe/` in an exported folder holds `probe.json` and the pictures as PNG files, so that the folder alone is enough to ask a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlm_analysis import words
from vlm_analysis.errors import ExportError, short
from vlm_analysis.files import read_bytes
from vlm_analysis.guard.schema import TEXTS, fields, listed, maybe, number, text, whole
from vlm_analysis.prompts.images import MAX_FILE_BYTES
from vlm_analysis.saved import Form

PROBE_FOLDER, PROBE_FILE = "probe", "probe.json"
MOST = 8
"""Prompts of a probe."""
VARIANTS = {
    "deepstack": "its DeepStack features are lost",
    "layers": "its layers are numbered wrongly",
}
"""The two broken models: what a server may do wrong without an error. The second runs layers 1, 2, … and last layer 0."""

_ANSWER, _NAME = text(20_000), text(200, 1)
_FIRST = fields({"token": text(1000), "logprob": number(most=0.0)})
_PROMPT = fields(
    {
        "id": text(200),
        "question": text(20_000, 1),
        "images": listed(_NAME, 1, 64),
        "answer": _ANSWER,
        "first": maybe(_FIRST),
        "otherwise": TEXTS,
    }
)
FORM = Form(
    ("probe",),
    1,
    "probe of a checkpoint",
    "Export the checkpoint again.",
    ExportError,
    fields(
        {
            "opening": text(1000),
            "max_new_tokens": whole(1, 10_000),
            "asked": listed(_PROMPT, 1, 1000),
            "not_tried": TEXTS,
        }
    ),
)


@dataclass(frozen=True)
class FirstToken:
    """The first token of an answer: its text, and its log-probability in nats under plain softmax."""

    token: str
    logprob: float


@dataclass(frozen=True)
class ProbePrompt:
    """One prompt of a probe.

    Attributes:
        images: names of PNG files beside the probe's.
        answer: the exported model's greedy answer, cut after `Probe.max_new_tokens`.
        first: its first token; None where the model's logits are not finite.
        otherwise: the answers of the broken models, by their name in `VARIANTS`.
    """

    id: str
    question: str
    images: tuple[str, ...]
    answer: str
    first: FirstToken | None = None
    otherwise: Mapping[str, str] = field(default_factory=dict)

    def tells(self, variant: str) -> bool:
        """Return whether a broken model answers otherwise."""
        return variant in self.otherwise and bare(self.otherwise[variant]) != bare(self.answer)


@dataclass(frozen=True)
class Probe:
    """Prompts with the answers of an exported model.

    Attributes:
        opening: what the chat template writes between a question and its answer; some servers leave it in front of the answer.
        not_tried: for a broken model that could not be made, the reason.
    """

    prompts: tuple[ProbePrompt, ...]
    max_new_tokens: int
    opening: str = ""
    not_tried: Mapping[str, str] = field(default_factory=dict)

    def n_tell(self, variant: str) -> int:
        """Return how many prompts tell a broken model from the exported one."""
        return sum(prompt.tells(variant) for prompt in self.prompts)

    def words(self) -> str:
        """Return how many prompts there are, and how many tell each broken model."""
        parts = [words.counted(len(self.prompts), "prompt")]
        for variant, what in VARIANTS.items():
            if variant in self.not_tried:
                parts.append(f"{self.not_tried[variant]}, so none is there to tell whether {what}")
            else:
                n = self.n_tell(variant)
                parts.append(f"{n or 'none'} tell{'s' if n < 2 else ''} whether {what}")
        return "; ".join(parts)


def bare(answer: str) -> str:
    """Return an answer as it is compared: without an unfinished last character, and with single blanks."""
    return " ".join(answer.rstrip("\ufffd").split())


def probe_text(probe: Probe) -> str:
    """Return the text of a probe's file."""
    tell = {variant: probe.n_tell(variant) for variant in VARIANTS if variant not in probe.not_tried}
    content = asdict(probe)
    return FORM.text({"what": probe.words(), "tell": tell, "asked": content.pop("prompts"), **content})


def open_probe(folder: Path) -> Probe:
    """Return the probe of an exported folder.

    Raises:
        ExportError: there is none, or its file is damaged.
    """
    path = Path(folder) / PROBE_FOLDER / PROBE_FILE
    if not path.exists():
        raise ExportError(
            f"{short(folder)} holds no probe: expected {PROBE_FOLDER}/{PROBE_FILE} in an exported folder, got none there. Export the "
            "checkpoint with this version of Strata, or name its folder by --export."
        )
    return FORM.open(path, _probe_of)


def probe_words(folder: Path) -> str:
    """Return what the probe of an exported folder can tell (`Probe.words`); "" where it has none."""
    has_one = (Path(folder) / PROBE_FOLDER / PROBE_FILE).exists()
    return open_probe(folder).words() if has_one else ""


def picture(folder: Path, name: str) -> bytes:
    """Return the bytes of a picture of the probe in an exported folder.

    Raises:
        ExportError: it is missing, too large, or its name leads elsewhere.
    """
    if Path(name).name != name or not name.endswith(".png"):
        raise ExportError(f"The probe is damaged: expected the name of a PNG file beside it, got {short(repr(name))}.")
    try:
        return read_bytes(Path(folder) / PROBE_FOLDER / name, MAX_FILE_BYTES)
    except OSError as error:
        raise ExportError(
            f"A picture of the probe cannot be read: expected {PROBE_FOLDER}/{name}, got: {short(error)}. Export the checkpoint again."
        ) from error


def _probe_of(content: dict[str, Any]) -> Probe:
    prompts = tuple(
        ProbePrompt(
            one["id"],
            one["question"],
            tuple(one["images"]),
            one["answer"],
            None if one["first"] is None else FirstToken(one["first"]["token"], float(one["first"]["logprob"])),
            {name: one["otherwise"][name] for name in VARIANTS if name in one["otherwise"]},
        )
        for one in content["asked"]
    )
    return Probe(prompts, content["max_new_tokens"], content["opening"], dict(content["not_tried"]))
