"""Prompts from tables, folders and packs: one bad row is reported by name, the rest go on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_analysis import prompts as prompts_module
from vlm_analysis.errors import PromptError
from vlm_analysis.images import image_hash
from vlm_analysis.prompts import Problem, Prompt, PromptSet, bundled_packs, open_prompts, write_prompts

RED, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images, a.png (red) and b.png (blue)."""
    RED.save(tmp_path / "a.png")
    BLUE.save(tmp_path / "b.png")
    return tmp_path


def from_csv(folder: Path, text: str | bytes) -> PromptSet:
    table = folder / "prompts.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_prompts(table)


def from_jsonl(folder: Path, *rows: object) -> PromptSet:
    table = folder / "prompts.jsonl"
    table.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return open_prompts(table)


def questions(prompts: PromptSet) -> list[str]:
    return [prompt.question for prompt in prompts]


def rows(prompts: PromptSet) -> list[tuple[int, str]]:
    return [(problem.row, problem.id) for problem in prompts.problems]


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


def test_a_prompt_loads_paths_and_images_alike(folder: Path) -> None:
    loaded = Prompt((folder / "a.png", RED), "same?").load_images()
    assert [image.tobytes() for image in loaded] == [RED.tobytes()] * 2


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
    with pytest.raises(PromptError, match=r"got 0 and 1 problems.*row 4 \('bars'\): no such file"):
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
    "text moved": {"question": "what?y", "answer": "es"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_tells_apart(change: str) -> None:
    given = {"images": (RED,), "question": "what?", "domain": "d", "id": "x", "answer": "yes"}
    assert PromptSet([Prompt(**given)]).fingerprint == PromptSet([Prompt(**given)]).fingerprint
    assert PromptSet([Prompt(**{**given, **CHANGES[change]})]).fingerprint != PromptSet([Prompt(**given)]).fingerprint


def test_the_fingerprint_depends_on_the_order_and_not_on_problems() -> None:
    first, second = Prompt((RED,), "1?", id="x"), Prompt((RED,), "2?", id="y")
    forward = PromptSet([first, second])
    assert forward.fingerprint != PromptSet([second, first]).fingerprint
    assert forward.fingerprint == PromptSet([first, second], [Problem(1, "", "lost")]).fingerprint


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    line = f'[["{image_hash(RED)}"], "caf\\u00e9?", "default", "1", null]\n'
    assert PromptSet([Prompt((RED,), "café?")]).fingerprint == hashlib.sha256(line.encode()).hexdigest()


# Tables


def test_a_csv_is_read_with_all_its_columns(folder: Path) -> None:
    text = 'image,question,domain,id,answer\na.png,"red, or ""blue""?",math,x,red\nb.png,what?,,,\n'
    prompts = from_csv(folder, text)
    assert prompts.problems == ()
    assert [(p.question, p.domain, p.id, p.answer) for p in prompts] == [
        ('red, or "blue"?', "math", "x", "red"),
        ("what?", "default", "2", None),
    ]
    assert [prompt.images for prompt in prompts] == [(folder / "a.png",), (folder / "b.png",)]


def test_csv_jsonl_parquet_and_folder_tables_agree(folder: Path) -> None:
    row = {"image": "a.png", "question": "what?", "domain": "math", "id": "x", "answer": "7"}
    pd.DataFrame([row]).to_parquet(folder / "prompts.parquet")
    fingerprints = [open_prompts(folder).fingerprint, open_prompts(folder / "prompts.parquet").fingerprint]
    (folder / "prompts.parquet").unlink()
    fingerprints += [from_jsonl(folder, row).fingerprint, open_prompts(str(folder)).fingerprint]
    fingerprints.append(from_csv(folder, "\n".join(",".join(line) for line in (row, row.values()))).fingerprint)
    assert len(set(fingerprints)) == 1


def test_several_images_are_a_list_in_jsonl_and_a_json_list_in_csv(folder: Path) -> None:
    listed = from_csv(folder, 'images,question\n"[""a.png"", ""b.png""]",which?\na.png,one?\n')
    expected = [(folder / "a.png", folder / "b.png"), (folder / "a.png",)]
    assert [prompt.images for prompt in listed] == expected
    told = from_jsonl(folder, {"images": ["a.png", "b.png"], "question": "?"}, {"image": "a.png", "question": "?"})
    assert [prompt.images for prompt in told] == expected


def test_one_corrupt_image_is_reported_and_the_rest_kept(folder: Path) -> None:
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    prompts = from_csv(folder, "image,question,id\na.png,1?,x\ncut.png,2?,broken\nb.png,3?,z\n")
    assert questions(prompts) == ["1?", "3?"]
    assert rows(prompts) == [(2, "broken")]
    assert "cut.png" in prompts.problems[0].message


BAD_ROWS = {
    "missing file": ({"image": "none.png", "question": "?"}, "not found"),
    "no image": ({"question": "?"}, "no image"),
    "blank image": ({"image": " ", "question": "?"}, "no image"),
    "empty list": ({"images": [], "question": "?"}, "no image"),
    "both": ({"image": "a.png", "images": ["a.png"], "question": "?"}, "both"),
    "image is a number": ({"image": 7, "question": "?"}, "got a int"),
    "list with a number": ({"images": ["a.png", 7], "question": "?"}, "got 7"),
    "broken list": ({"images": "[a.png", "question": "?"}, "JSON list"),
    "blank question": ({"image": "a.png", "question": " "}, "question is blank"),
    "NaN question": ('{"image": "a.png", "question": NaN}', "question is blank"),
    "question is a list": ({"image": "a.png", "question": ["?"]}, "got a list"),
    "endless answer": ('{"image": "a.png", "question": "?", "answer": Infinity}', "got inf"),
    "zero byte": ({"image": "a.png", "question": "a\0b"}, "zero byte"),
    "zero byte in path": ({"image": "a\0.png", "question": "?"}, "control character"),
    "half a character": ({"image": "a.png", "question": "\ud800"}, "half a character"),
    "huge": ({"image": "a.png", "question": "x" * 300_000}, "got 300,000"),
    "long path": ({"image": "x" * 5000, "question": "?"}, "could not be found"),
    "outside": ({"image": "../a.png", "question": "?"}, "'..'"),
    "absolute": ({"image": "/etc/passwd", "question": "?"}, "absolute"),
    "drive": ({"image": "C:\\a.png", "question": "?"}, "drive"),
    "folder": ({"image": "sub", "question": "?"}, "not found"),
    "no object": ("[1]", "JSON object"),
    "no JSON": ("{", "JSON object"),
    "too deep": ("[" * 100_000, "JSON object"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_one_bad_row_is_reported_with_its_number_and_the_rest_kept(case: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    bad, message = BAD_ROWS[case]
    good = {"image": "a.png", "question": "good?"}
    prompts = from_jsonl(folder, {**good, "id": "x"}, bad, {**good, "id": "y"})
    assert [prompt.id for prompt in prompts] == ["x", "y"]
    assert rows(prompts) == [(2, "2")]
    assert message in prompts.problems[0].message


def test_a_link_that_leads_outside_is_reported_and_one_inside_works(folder: Path) -> None:
    inside = folder / "set"
    inside.mkdir()
    RED.save(inside / "real.png")
    (inside / "good.png").symlink_to("real.png")
    (inside / "escape.png").symlink_to("../a.png")
    (inside / "up").symlink_to("..")
    (inside / "loop.png").symlink_to("loop.png")
    table = "image,question\ngood.png,1?\nescape.png,2?\nup/a.png,3?\nloop.png,4?\n"
    prompts = from_csv(inside, table)
    assert questions(prompts) == ["1?"]
    assert [problem.row for problem in prompts.problems] == [2, 3, 4]
    assert "leads outside" in prompts.problems[0].message
    assert "leads outside" in prompts.problems[1].message


def test_the_second_of_two_equal_ids_is_reported_by_name(folder: Path) -> None:
    prompts = from_csv(folder, "image,question,id\na.png,1?,x\na.png,2?,x\na.png,3?,\n")
    assert questions(prompts) == ["1?", "3?"]
    assert rows(prompts) == [(2, "x")]
    assert "'x' is taken" in prompts.problems[0].message


def test_unknown_columns_are_reported_once_and_ignored(folder: Path) -> None:
    prompts = from_csv(folder, "image,question,colour,Size,\na.png,1?,red,4,\nb.png,2?,blue,4,\n")
    assert questions(prompts) == ["1?", "2?"]
    assert rows(prompts) == [(0, "")]
    assert "'colour', 'size'" in prompts.problems[0].message


@pytest.mark.parametrize("header", ["image,Frage", "file,question", "image;question"])
def test_a_missing_column_is_refused_naming_found_and_expected(header: str, folder: Path) -> None:
    found = ", ".join(f"'{column.lower()}'" for column in header.split(","))
    with pytest.raises(PromptError, match=rf"'image' \(or 'images'\) and 'question'.*got {found}"):
        from_csv(folder, f"{header}\na.png,1?\n")


def test_a_column_twice_is_refused(folder: Path) -> None:
    with pytest.raises(PromptError, match="'question' again"):
        from_csv(folder, "image,question,Question\na.png,1?,2?\n")


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.jsonl"])
def test_a_byte_order_mark_changes_nothing(name: str, folder: Path) -> None:
    text = {"prompts.csv": "image,question\na.png,é?\n", "prompts.jsonl": '{"image": "a.png", "question": "é?"}'}[name]
    opened = []
    for encoding in ("utf-8", "utf-8-sig"):
        (folder / name).write_text(text, encoding=encoding)
        opened.append(open_prompts(folder / name))
    assert [prompts.problems for prompts in opened] == [(), ()]
    assert questions(opened[1]) == ["é?"]
    assert opened[0].fingerprint == opened[1].fingerprint


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["prompts.csv", "prompts.jsonl"])
def test_other_encodings_are_refused_with_the_way_out(name: str, encoding: str, folder: Path) -> None:
    (folder / name).write_bytes("image,question\na.png,é?\n".encode(encoding))
    with pytest.raises(PromptError, match="Save it as UTF-8"):
        open_prompts(folder / name)


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.jsonl", "prompts.parquet"])
def test_an_empty_file_and_a_table_of_no_rows_are_refused(name: str, folder: Path) -> None:
    (folder / name).touch()
    with pytest.raises(PromptError, match="empty file"):
        open_prompts(folder)
    if name.endswith("parquet"):
        pd.DataFrame({"image": [], "question": []}).to_parquet(folder / name)
    else:
        (folder / name).write_text("image,question\n" if name.endswith("csv") else "\n\n")
    with pytest.raises(PromptError, match="got 0 rows"):
        open_prompts(folder)


def test_10000_rows_are_read_and_one_more_is_refused(folder: Path) -> None:
    lines = ["image,question", *["none.png,?"] * 10_000]
    with pytest.raises(PromptError, match="10000 problems"):
        from_csv(folder, "\n".join(lines))
    with pytest.raises(PromptError, match="at most 10,000 rows"):
        from_csv(folder, "\n".join([*lines, "none.png,?"]))
    pd.DataFrame({"image": ["a.png"] * 10_001, "question": "?"}).to_parquet(folder / "big.parquet")
    with pytest.raises(PromptError, match="at most 10,000 rows, got 10,001"):
        open_prompts(folder / "big.parquet")


def test_csv_rows_with_bad_quotes_or_cells_are_reported(folder: Path) -> None:
    text = 'image,question\na.png,"x"y\na.png,too,many\n\na.png,z\0\na.png,good?\na.png\na.png,"never closed\nb.png,lost?\n'
    prompts = from_csv(folder, text)
    assert questions(prompts) == ["good?"]
    assert [problem.row for problem in prompts.problems] == [1, 2, 3, 5, 6]
    assert "line 8" in prompts.problems[-1].message


def test_a_cell_beyond_the_csv_limit_is_one_bad_row(folder: Path) -> None:
    prompts = from_csv(folder, f"image,question\na.png,{'x' * 200_000}\na.png,good?\n")
    assert questions(prompts) == ["good?"]
    assert rows(prompts) == [(1, "1")]


def test_missing_cells_of_parquet_never_become_the_word_nan(folder: Path) -> None:
    nan = float("nan")
    frame = pd.DataFrame(
        {
            "image": ["a.png", None, "a.png"],
            "question": ["1?", "2?", None],
            "id": [nan, nan, nan],
            "answer": [7, nan, 2],
        }
    )
    assert str(frame["answer"].dtype) == "float64"
    frame.to_parquet(folder / "t.parquet")
    prompts = open_prompts(folder / "t.parquet")
    assert [(p.id, p.answer) for p in prompts] == [("1", "7")]
    assert rows(prompts) == [(2, "2"), (3, "3")]


@pytest.mark.parametrize(
    ("cell", "text"), [(7, "7"), (7.0, "7"), (7.5, "7.5"), (-0.25, "-0.25"), (True, "true"), (10**20, "1" + "0" * 20)]
)
def test_numbers_become_the_text_one_would_write(cell: object, text: str, folder: Path) -> None:
    prompts = from_jsonl(folder, {"image": "a.png", "question": cell, "answer": cell, "id": cell})
    assert (prompts[0].question, prompts[0].answer, prompts[0].id) == (text, text, text)


def test_text_that_reads_nan_or_none_stays_text(folder: Path) -> None:
    prompts = from_csv(folder, "image,question,answer\na.png,None,nan\n")
    assert (prompts[0].question, prompts[0].answer) == ("None", "nan")


def test_line_separators_inside_json_text_do_not_split_the_row(folder: Path) -> None:
    prompts = from_jsonl(folder, '{"image": "a.png", "question": "one\u2028two\u0085three"}')
    assert questions(prompts) == ["one\u2028two\u0085three"]


def test_a_damaged_parquet_is_refused(folder: Path) -> None:
    pd.DataFrame({"image": ["a.png"], "question": ["?"]}).to_parquet(folder / "t.parquet")
    whole = (folder / "t.parquet").read_bytes()
    for data in (whole[:-10], b"PAR1" + bytes(100) + b"PAR1"):
        (folder / "t.parquet").write_bytes(data)
        with pytest.raises(PromptError, match="expected a Parquet table"):
            open_prompts(folder / "t.parquet")


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
    with pytest.raises(PromptError, match=r"1 other files, such as 'notes.md'"):
        open_prompts(tmp_path)


def test_a_table_deeper_in_a_folder_is_not_taken_and_two_at_its_top_are_refused(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "prompts.csv").touch()
    assert questions(from_csv(folder, "image,question\na.png,1?\n")) == ["1?"]
    assert questions(open_prompts(folder)) == ["1?"]
    (folder / "prompts.jsonl").touch()
    with pytest.raises(PromptError, match=r"'prompts.csv' and 'prompts.jsonl'"):
        open_prompts(folder)


def test_a_pack_is_opened_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts_module, "PACKS", folder)
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
    with pytest.raises(PromptError, match=r"expected \.csv, \.jsonl, \.parquet, got '\.xlsx'"):
        open_prompts(("mine.xlsx", b"x"))


# Writing


def test_what_was_written_opens_with_the_same_fingerprint(folder: Path) -> None:
    RED.save(folder / "again.bmp")
    prompts = PromptSet(
        [
            Prompt((folder / "a.png", BLUE), 'two "images",\nüber?', "math", "x", "7"),
            Prompt((folder / "again.bmp",), "\u2028 one?", "general"),
        ]
    )
    table = write_prompts(prompts, folder / "out" / "set")
    again = open_prompts(table.parent)
    assert again.problems == ()
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
    with pytest.raises(PromptError, match=r"prompt '1' could not be written"):
        write_prompts(prompts, folder / "out")
    assert not (folder / "out" / "prompts.jsonl").exists()


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    with pytest.raises(PromptError, match=r"could not be written to '.*a\.png"):
        write_prompts(PromptSet([Prompt((RED,), "1?")]), folder / "a.png")


TEXT = st.text(min_size=1, max_size=30)


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
