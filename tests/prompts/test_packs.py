"""The bundled packs: their files are as they were, and what masks are reported on is nothing they are chosen on."""

from __future__ import annotations

import hashlib

import pytest

from vlm_analysis import open_prompts
from vlm_analysis.assets import asset
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.prompts.opening import REPORT, STEPS, bundled_packs, choosing_packs

FILES = {
    "general": "bc9e20e1cddb6f9c",
    "general-report": "13985f0d51850eaa",
    "math": "6fc5c7b03296f17f",
    "math-report": "4a267b588e91a987",
    "steps": "b977e23a03906e56",
    "steps-report": "57290c3bac0d2215",
}


def hash_of(pack: str) -> str:
    """Return a hash of the names and bytes of a pack's files."""
    folder, digest = asset("packs", pack), hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def test_the_packs_are_byte_for_byte_what_they_were() -> None:
    assert {pack: hash_of(pack) for pack in bundled_packs()} == FILES


def test_each_choosing_pack_has_one_to_report_on() -> None:
    assert choosing_packs() == ("general", "math")
    packs = (*choosing_packs(), STEPS)  # which Pocket-VL does not answer
    assert set(bundled_packs()) == {f"{pack}{end}" for pack in packs for end in ("", REPORT)}


@pytest.mark.parametrize(("domain", "n"), [("general", 45), ("math", 45), ("steps", 64)])
def test_no_prompt_of_a_report_pack_is_in_the_other(domain: str, n: int) -> None:
    choose, report = (
        open_prompts("general") + open_prompts("math") + open_prompts("steps"),
        open_prompts(f"{domain}{REPORT}"),
    )
    assert len(report) == len(open_prompts(domain)) == n
    assert report.domains == (domain,)
    assert not {prompt.key for prompt in choose} & {prompt.key for prompt in report}
    assert n_shared(report, choose.row_keys) == 0  # no picture either
    assert not {prompt.id for prompt in choose} & {prompt.id for prompt in report}
    assert not report.problems
