"""Prompts and their sets, and where they come from: folders, packs, uploads, and back to disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from tables import BLUE, RED, from_csv, from_jsonl, questions, rows

from vlm_analysis import Prompt, PromptSet, open_prompts, write_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import opening, writing
from vlm_analysis.prompts.images import image_hash
from vlm_analysis.prompts.opening import bundled_packs
from vlm_analysis.prompts.prompts import KEY_DIGITS, Problem

# Prompt


def test_a_prompt_strips_its_texts_and_fills_what_is_blank() -> None:
    prompt = Prompt((RED,), "  what? ", "  ", " ", "\n")
    assert (prompt.question, prompt.domain, prompt.id, prompt.answer) == ("what?", "default", None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), "what?"), "expected 1 to 64 images, got 0"),
        (((RED,) * 65, "what?"), "got 65"),
        ((RED, "what?"), "expected a tuple"),
        (("a.png", "what?"), "expected a tuple, got a str"),
        (((b"x",), "what?"), "got a bytes"),
        (((RED,), " \n"), "question is blank"),
        (((RED,), 7), "expected text, got a int"),
        (((RED,), "x" * 10_001), "question is too long"),
        (((RED,), "what?", "d" * 201), "domain is too long"),
        (((RED,), "what?", "d", None, "x" * 10_001), "answer is too long"),
        (((RED,), "a\0b"), "zero byte"),
        (((RED,), "\ud800"), "half a character"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt(*arguments)


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        ("red, blue", None, "got a str"),
        ({"red", "blue"}, None, "got a set"),
        (("red",), None, "expected 2 to 26, got 1"),
        ((), None, "got 0"),
        (tuple(map(str, range(27))), None, "got 27"),
        (("red", 7), None, "expected text, got a int"),
        (("red", " "), None, "got a blank one"),
        (("red", "blue", " red"), None, "got 'red' twice"),
        (("red", "x" * 10_001), None, "choice is too long"),
        (("red", "a\0b"), None, "zero byte"),
        (("red", "blue"), "Red", r"none of the choices: expected one of 'red', 'blue', got 'Red'"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices: object, answer: str | None, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Prompt((RED,), "what?", answer=answer, choices=choices)  # type: ignore[arg-type]


def test_choices_are_stripped_and_stay_with_their_prompt() -> None:
    prompt = Prompt((RED,), "what?", answer=" red", choices=[" red ", "blue"])  # type: ignore[arg-type]
    assert (prompt.answer, prompt.choices) == ("red", ("red", "blue"))
    assert PromptSet([prompt])[0].choices == ("red", "blue")  # it got an id there
    assert Prompt((RED,), "what?").choices is None


def test_a_prompt_loads_paths_and_images_alike(folder: Path) -> None:
    loaded = Prompt((folder / "a.png", RED), "same?").load_images()
    assert [image.tobytes() for image in loaded] == [RED.tobytes()] * 2


def test_a_problem_can_always_be_shown() -> None:
    problem = Problem(1, "a\udcff", "no file 'a\udcff'")
    assert (problem.id, problem.message) == ("a?", "no file 'a?'")


# PromptSet


def test_prompts_without_id_get_their_position() -> None:
    prompts = PromptSet([Prompt((RED,), "1?"), Prompt((RED,), "2?", id="two"), Prompt((RED,), "3?")])
    assert [prompt.id for prompt in prompts] == ["1", "two", "3"]
    assert [prompt.id for prompt in prompts[1:]] == ["two", "3"]
    assert isinstance(prompts[1:], PromptSet)


def test_duplicate_ids_are_refused_by_name() -> None:
    with pytest.raises(PromptError, match="'x' more than once"):
        PromptSet([Prompt((RED,), "1?", id="x"), Prompt((RED,), "2?", id="x"), Prompt((RED,), "3?", id="y")])


def test_an_empty_set_is_refused_with_its_first_problems() -> None:
    with pytest.raises(PromptError, match=r"got 0 and 1 problem\. Fix first: row 4 \('bars'\): no such file"):
        PromptSet([], [Problem(4, "bars", "no such file")])
    with pytest.raises(PromptError, match="at least one prompt"):
        PromptSet([Prompt((RED,), "1?")])[1:]


def test_a_set_takes_prompts_only_and_at_most_10000() -> None:
    with pytest.raises(PromptError, match="got a str"):
        PromptSet(["what?"])  # type: ignore[list-item]
    with pytest.raises(PromptError, match="10,000"):
        PromptSet([Prompt((RED,), "1?")] * 10_001)


def test_domains_keep_the_order_of_their_first_prompt() -> None:
    prompts = PromptSet([Prompt((RED,), str(n), domain) for n, domain in enumerate("bacab")])
    assert prompts.domains == ("b", "a", "c")
    assert questions(prompts.for_domain("a")) == ["1", "3"]
    with pytest.raises(PromptError, match="expected one of 'b', 'a', 'c'"):
        prompts.for_domain("d")


def test_a_union_keeps_order_and_problems_and_refuses_shared_ids() -> None:
    one = PromptSet([Prompt((RED,), "1?", id="x")], [Problem(2, "2", "lost")])
    two = PromptSet([Prompt((RED,), "2?", id="y")])
    assert questions(one + two) == ["1?", "2?"]
    assert (one + two).problems == one.problems
    with pytest.raises(PromptError, match="'x'"):
        one.extended(one)


CHANGES = {
    "image": {"images": (BLUE,)},
    "number of images": {"images": (RED, RED)},
    "question": {"question": "why?"},
    "domain": {"domain": "other"},
    "id": {"id": "other"},
    "answer": {"answer": "other"},
    "no answer": {"answer": None},
    "choices": {"choices": ("yes", "no")},
    "text moved": {"question": "what?y", "answer": "es"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_tells_apart(change: str) -> None:
    given = {"images": (RED,), "question": "what?", "domain": "d", "id": "x", "answer": "yes"}
    assert PromptSet([Prompt(**given)]).fingerprint == PromptSet([Prompt(**given)]).fingerprint
    assert PromptSet([Prompt(**{**given, **CHANGES[change]})]).fingerprint != PromptSet([Prompt(**given)]).fingerprint


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_tells_apart_what_is_asked_and_not_its_name(change: str) -> None:
    given = {"images": (RED,), "question": "what?", "domain": "d", "id": "1", "answer": "yes"}
    same = Prompt(**{**given, **CHANGES[change]}).key == Prompt(**given).key
    assert same == (change in ("domain", "id"))
    assert Prompt(**given, choices=("yes", "no")).key != Prompt(**given, choices=("no", "yes")).key


def test_equal_prompts_have_rows_of_their_own_that_neither_ids_nor_order_change() -> None:
    one, moved = Prompt((RED,), "what?", "d"), Prompt((RED,), "what?", "e")
    keys = PromptSet([one, one, moved]).row_keys
    assert len(set(keys)) == 3
    assert {key[:KEY_DIGITS] for key in keys} == {one.key}
    assert {len(key) for key in keys} == {32}
    named = PromptSet([moved, Prompt((RED,), "what?", "d", "seven"), one])
    assert named.row_keys == (keys[2], *keys[:2])


def test_the_fingerprint_depends_on_the_order_and_not_on_problems() -> None:
    first, second = Prompt((RED,), "1?", id="x"), Prompt((RED,), "2?", id="y")
    forward = PromptSet([first, second])
    assert forward.fingerprint != PromptSet([second, first]).fingerprint
    assert forward.fingerprint == PromptSet([first, second], [Problem(1, "", "lost")]).fingerprint


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    line = f'[["{image_hash(RED)}"], "caf\\u00e9?", "default", "1", null]\n'
    assert PromptSet([Prompt((RED,), "café?")]).fingerprint == hashlib.sha256(line.encode()).hexdigest()


def test_choices_and_their_order_are_told_apart_and_other_fingerprints_stay() -> None:
    with_choices = [
        PromptSet([Prompt((RED,), "?", choices=texts)]) for texts in (("a", "b"), ("b", "a"), ("a", "b", "c"))
    ]
    assert len({prompts.fingerprint for prompts in with_choices}) == 3
    line = f'[["{image_hash(RED)}"], "?", "default", "1", null, ["a", "b"]]\n'
    assert with_choices[0].fingerprint == hashlib.sha256(line.encode()).hexdigest()


# Folders, packs, uploads


def test_a_bare_folder_is_read_by_domains(folder: Path) -> None:
    for name, text in {"a.txt": "top?", "math/c.txt": "\ufeffhow many?", "math/c.answer.txt": "3\n"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("c.png", "d.PNG"):
        RED.save(folder / "math" / name)
    (folder / "math" / "d.txt").write_bytes("é".encode("latin-1"))
    prompts = open_prompts(folder)
    assert [(p.id, p.domain, p.question, p.answer) for p in prompts] == [
        ("a", "default", "top?", None),
        ("math/c", "math", "how many?", "3"),
    ]
    assert rows(prompts) == [(2, "b"), (4, "math/d")]
    assert "'b.txt'" in prompts.problems[0].message
    assert "UTF-8" in prompts.problems[1].message


def test_a_folder_without_prompts_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(PromptError, match=r"1 other file, such as 'notes.md'"):
        open_prompts(tmp_path)


def test_of_a_folder_of_too_many_images_the_rest_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text("what?")
    monkeypatch.setattr(opening, "MAX_ROWS", 1)
    found = open_prompts(folder)
    assert [prompt.id for prompt in found] == ["a"]
    assert [problem.message[:30] for problem in found.problems] == ["1 more row left out: expected "]


def test_a_path_may_start_at_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "a.txt").write_text("home?")
    assert questions(open_prompts("~")) == ["home?"]


def test_a_table_deeper_in_a_folder_is_not_taken_and_two_at_its_top_are_refused(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "prompts.csv").touch()
    assert questions(from_csv(folder, "image,question\na.png,1?\n")) == ["1?"]
    assert questions(open_prompts(folder)) == ["1?"]
    (folder / "prompts.jsonl").touch()
    with pytest.raises(PromptError, match=r"'prompts.csv' and 'prompts.jsonl'"):
        open_prompts(folder)


def test_a_pack_is_opened_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PACKS", folder)
    for name in ("tiny", "also"):
        (folder / name).mkdir()
        RED.save(folder / name / "a.png")
        from_jsonl(folder / name, {"image": "a.png", "question": f"{name}?"})
    (folder / "no-pack").mkdir()
    assert bundled_packs() == ("also", "tiny")
    assert questions(open_prompts("tiny")) == ["tiny?"]
    with pytest.raises(PromptError, match=r"\('also', 'tiny'\), got 'none', which is not there"):
        open_prompts("none")


def test_a_prompt_set_is_returned_as_it_is() -> None:
    prompts = PromptSet([Prompt((RED,), "1?")])
    assert open_prompts(prompts) is prompts


@pytest.mark.parametrize("source", ["", "x" * 5000, "a\0b", "~nobody-here/x", 7, ("a.csv", "text"), ("a.csv",), None])
def test_what_is_no_source_is_refused(source: object) -> None:
    with pytest.raises(PromptError, match="prompts could not be opened"):
        open_prompts(source)  # type: ignore[arg-type]


def test_a_table_uploaded_alone_asks_for_its_images() -> None:
    with pytest.raises(PromptError, match="Zip the table with its images"):
        open_prompts(("mine.csv", b"image,question\na.png,1?\n"))
    with pytest.raises(PromptError, match=r"expected \.csv, .*\.parquet, \.arrow, got '\.xlsx'"):
        open_prompts(("mine.xlsx", b"x"))


# Writing


def test_a_table_too_long_to_open_again_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_TABLE_BYTES", 100)
    with pytest.raises(PromptError, match="expected 100 bytes"):
        write_prompts(PromptSet([Prompt((RED,), "x" * 100)]), folder / "out")
    assert not (folder / "out" / "prompts.jsonl").exists()


def test_what_was_written_opens_with_the_same_fingerprint(folder: Path) -> None:
    RED.save(folder / "again.bmp")
    prompts = PromptSet(
        [
            Prompt((folder / "a.png", BLUE), 'two "images",\nüber?', "math", "x", "7"),
            Prompt((folder / "again.bmp",), "\u2028 one?", "general"),
            Prompt((RED,), "which?", answer="b, c", choices=('"a"', "b, c")),
        ]
    )
    table = write_prompts(prompts, folder / "out" / "set")
    again = open_prompts(table.parent)
    assert again.problems == ()
    assert again[2].choices == ('"a"', "b, c")
    assert again.fingerprint == prompts.fingerprint == open_prompts(table).fingerprint
    assert sorted(path.stem for path in (table.parent / "images").iterdir()) == sorted(
        {image_hash(RED), image_hash(BLUE)}
    )


def test_writing_again_changes_nothing_and_another_table_is_refused(folder: Path) -> None:
    prompts = PromptSet([Prompt((RED,), "1?")])
    table = write_prompts(prompts, folder / "out")
    before = sorted((path, path.read_bytes()) for path in table.parent.rglob("*") if path.is_file())
    write_prompts(prompts, folder / "out")
    assert sorted((path, path.read_bytes()) for path in table.parent.rglob("*") if path.is_file()) == before
    table.rename(folder / "out" / "prompts.csv")
    with pytest.raises(PromptError, match="without a table"):
        write_prompts(prompts, folder / "out")


def test_an_image_that_changed_since_is_not_written_under_its_old_name(folder: Path) -> None:
    prompts = from_csv(folder, "image,question\na.png,1?\n")
    BLUE.save(folder / "a.png")
    with pytest.raises(PromptError, match=r"a.png' could not be used: expected the pixels that were read first"):
        write_prompts(prompts, folder / "out")
    assert not (folder / "out" / "prompts.jsonl").exists()


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    with pytest.raises(PromptError, match=r"could not be written to '.*a\.png"):
        write_prompts(PromptSet([Prompt((RED,), "1?")]), folder / "a.png")


TEXT = st.text(min_size=1, max_size=30)


@settings(deadline=None)
@given(question=TEXT, domain=TEXT, answer=st.none() | TEXT)
def test_any_text_a_prompt_takes_survives_writing(
    question: str, domain: str, answer: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        prompts = PromptSet([Prompt((RED,), question, domain, "x", answer)])
    except PromptError:
        return
    again = open_prompts(write_prompts(prompts, tmp_path_factory.mktemp("set")))
    assert again[0] == Prompt(again[0].images, question, domain, "x", answer)
    assert again.fingerprint == prompts.fingerprint
