"""Tables of prompts: one bad row is reported with its number and id, the rest go on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from tables import RED, from_csv, from_jsonl, questions, rows

from vlm_analysis import open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import opening, unpacked


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


def test_choices_are_a_json_list_in_csv_and_a_list_or_its_text_elsewhere(folder: Path) -> None:
    cells = [["red", "blue"], None, [], '["red", "blue"]', "", [1, 2.5]]
    wanted = [("red", "blue"), None, None, ("red", "blue"), None, ("1", "2.5")]
    row = {"image": "a.png", "question": "?"}
    told = from_jsonl(folder, *({**row, "choices": cell} for cell in cells))
    assert [prompt.choices for prompt in told] == wanted
    listed = from_csv(
        folder, 'image,question,choices,answer\na.png,?,"[""red"", ""blue""]",blue\na.png,?,,\na.png,?,[],\n'
    )
    assert [prompt.choices for prompt in listed] == wanted[:3]
    assert listed[0].answer == "blue"
    frame = pd.DataFrame({"image": "a.png", "question": "?", "choices": cells[:3]})
    frame.to_parquet(folder / "t.parquet")
    assert [prompt.choices for prompt in open_prompts(folder / "t.parquet")] == wanted[:3]


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
    "choices no list": ({"image": "a.png", "question": "?", "choices": "red, blue"}, "expected a JSON list of texts"),
    "choices a table": ({"image": "a.png", "question": "?", "choices": {"a": 1}}, "got a dict"),
    "choices too deep": (
        {"image": "a.png", "question": "?", "choices": "[" * 100_000},
        "expected a JSON list of texts",
    ),
    "choice a list": ({"image": "a.png", "question": "?", "choices": [["a"], "b"]}, "got a list"),
    "choice missing": ({"image": "a.png", "question": "?", "choices": ["a", None]}, "got a blank one"),
    "choice alone": ({"image": "a.png", "question": "?", "choices": ["a"]}, "expected 2 to 26, got 1"),
    "answer no choice": (
        {"image": "a.png", "question": "?", "choices": ["a", "b"], "answer": "c"},
        "none of the choices",
    ),
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
    assert "got 'colour', 'Size'. " in prompts.problems[0].message


@pytest.mark.parametrize("header", ["image,Frage", "file,question", "image;question"])
def test_a_missing_column_is_refused_naming_found_and_expected(header: str, folder: Path) -> None:
    found = ", ".join(f"'{column}'" for column in header.split(","))
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


@pytest.mark.parametrize("name", ["big.csv", "big.parquet", "big.json"])
def test_of_more_rows_than_a_set_holds_the_first_are_read_and_the_rest_counted(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MAX_ROWS", 2)
    frame = pd.DataFrame({"image": ["none.png", *["a.png"] * 5], "question": "?"})
    {".csv": frame.to_csv, ".parquet": frame.to_parquet, ".json": partial(frame.to_json, orient="records")}[
        Path(name).suffix
    ](folder / name)
    prompts = open_prompts(folder / name)
    assert [prompt.id for prompt in prompts] == ["2", "3"]
    assert [problem.row for problem in prompts.problems if "columns" not in problem.message] == [1, 0]
    assert "3 more rows left out" in prompts.problems[-1].message


def test_csv_rows_with_bad_quotes_or_cells_are_reported(folder: Path) -> None:
    text = 'image,question\na.png,"x"y\na.png,too,many\n\na.png,z\0\na.png,good?\na.png\n'
    text += 'a.png,"never closed\nb.png,lost?\n'
    prompts = from_csv(folder, text)
    assert questions(prompts) == ["good?"]
    assert [problem.row for problem in prompts.problems] == [1, 2, 3, 5, 6]
    assert "line 8" in prompts.problems[-1].message


def test_a_cell_beyond_the_csv_limit_is_one_bad_row(folder: Path) -> None:
    prompts = from_csv(folder, f"image,question\na.png,{'x' * 200_000}\na.png,good?\n")
    assert questions(prompts) == ["good?"]
    assert rows(prompts) == [(1, "1")]
    assert "got 200,000" in prompts.problems[0].message


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


def test_a_parquet_of_some_kilobytes_that_stands_for_gigabytes_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary of one long text, repeated in each row; by a bound that is met in a second."""
    monkeypatch.setattr(unpacked, "BOUNDS", replace(unpacked.BOUNDS, memory=300 << 20))
    long_text = pa.array(["x" * 60_000_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), long_text)
    table = pa.table({"image": pa.array(["a.png"] * 64), "question": column})
    parquet.write_table(table, folder / "t.parquet", compression="zstd", use_dictionary=True)
    assert (folder / "t.parquet").stat().st_size < 100_000
    with pytest.raises(PromptError, match=r"'t\.parquet' was refused: .* needed more than \d+ MiB of memory. Split it"):
        open_prompts(folder / "t.parquet")


def test_a_very_long_id_is_refused_and_shown_cut(folder: Path) -> None:
    good = {"image": "a.png", "question": "?"}
    prompts = from_jsonl(folder, good, {**good, "id": "x" * 201})
    assert rows(prompts) == [(2, "x" * 200)]


def test_a_damaged_parquet_is_refused(folder: Path) -> None:
    pd.DataFrame({"image": ["a.png"], "question": ["?"]}).to_parquet(folder / "t.parquet")
    whole = (folder / "t.parquet").read_bytes()
    for data in (whole[:-10], b"PAR1" + bytes(100) + b"PAR1"):
        (folder / "t.parquet").write_bytes(data)
        with pytest.raises(PromptError, match="expected a Parquet table"):
            open_prompts(folder / "t.parquet")
