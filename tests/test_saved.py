"""The one reader of saved files: whatever lies in a file, it is opened whole or refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_analysis.errors import EvaluationError, MaskError
from vlm_analysis.saved import MAX_TEXT, Arrays, Form

FORM = Form(("strata-toy",), 2, "toy", "Make it again.", EvaluationError)
GOOD = json.loads(FORM.text({"prompts": "p", "n": 3}))


def same(content: dict[str, Any]) -> dict[str, Any]:
    return content


def test_content_comes_back_with_its_kind_and_version(tmp_path: Path) -> None:
    assert FORM.open(FORM.save(tmp_path / "deep" / "toy.json", {"n": np.int64(3)}), same) == {
        "schema_version": 2,
        "kind": "strata-toy",
        "n": 3,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a whole toy"),
        ("{", "not a whole toy"),
        ("[1]", "is no toy: expected the kind 'strata-toy'"),
        ("null", "is no toy"),
        ("[" * 100_000, "not a whole toy"),
        ('{"a":' * 100_000, "not a whole toy"),
        ("1" * 5000, "not a whole toy"),
        (json.dumps(GOOD | {"kind": "strata-other"}), "got 'strata-other'"),
        (json.dumps(GOOD | {"kind": ["strata-toy"]}), "is no toy"),
        (json.dumps(GOOD | {"schema_version": 3}), "version 2 or older, got version 3. Update Strata"),
        (json.dumps(GOOD | {"schema_version": 0}), "not a whole toy"),
        (json.dumps(GOOD | {"schema_version": True}), "not a whole toy"),
        (json.dumps(GOOD | {"schema_version": "2"}), "not a whole toy"),
        (json.dumps(GOOD | {"prompts": 3}), "text of 0 to 200 characters in 'prompts', got 3"),
        (json.dumps(GOOD | {"n": float("nan")}), "not a whole toy"),
        (json.dumps(GOOD).replace("3", "1e999"), "1e999 is no JSON"),
        (json.dumps(GOOD).replace("3", "-Infinity"), "not a whole toy"),
        (json.dumps(GOOD).replace('"n"', '"kind": "strata-toy", "n"'), "a name stands twice"),
        (json.dumps(GOOD | {"n": "\ud800"}), "not a whole toy"),
    ],
)
def test_what_is_no_whole_file_is_refused_in_words(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "toy.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"^toy\.json ") as error:
        FORM.open(tmp_path / "toy.json", same)
    assert told in str(error.value)
    assert str(error.value).endswith(("Make it again.", "Update Strata."))
    assert len(str(error.value)) < 800


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(MAX_TEXT + 1)
    for name, told in (
        ("huge.json", "at most 268,435,456 bytes, got more"),
        ("none.json", "No such file"),
        (".", "an ordinary file"),
    ):
        for read in (FORM.open, FORM.open_arrays):
            with pytest.raises(EvaluationError, match=told if read == FORM.open else "toy"):
                read(tmp_path / name, lambda *_: None)


def test_what_making_the_value_raises_is_told_as_damage_but_for_its_own_error() -> None:
    def failing(error: Exception) -> Any:
        def make(content: dict[str, Any]) -> None:
            raise error

        return make

    text = FORM.text({})
    for error in (KeyError("model"), TypeError("x"), MaskError("No layer 99. Choose another."), ZeroDivisionError()):
        with pytest.raises(EvaluationError, match=r"not a whole toy: .*Make it again"):
            FORM.read(text, "toy", failing(error))
    with pytest.raises(EvaluationError, match=r"^mine$"):
        FORM.read(text, "toy", failing(EvaluationError("mine")))


class TestArrays:
    def test_arrays_come_back_and_others_are_refused(self, tmp_path: Path) -> None:
        path = FORM.save_arrays(tmp_path / "toy.npz", {"n": 3}, {"x": np.ones((2, 3)), "y": np.array(["a"])})

        def made(content: dict[str, Any], arrays: Arrays) -> Any:
            assert (content["n"], arrays.names, arrays.more) == (3, {"meta", "x", "y"}, ())
            for dtype, shape in ((None, (2, None)), (np.float64, (None, 3))):
                np.testing.assert_array_equal(arrays.get("x", dtype, shape), np.ones((2, 3)))
            for name, dtype, shape in (("x", "<f4", (2, 3)), ("x", None, (2,)), ("x", None, (3, 2)), ("z", None, ())):
                with pytest.raises((ValueError, LookupError)):
                    arrays.get(name, dtype, shape)
            return content

        assert FORM.open_arrays(path, made)["kind"] == "strata-toy"

    def test_an_array_is_never_unpickled(self, tmp_path: Path) -> None:
        np.savez(
            tmp_path / "toy.npz",
            meta=np.frombuffer(FORM.text({}).encode(), np.uint8),
            x=np.array([{}], dtype=object),
        )
        with pytest.raises(EvaluationError, match="not a whole toy"):
            FORM.open_arrays(tmp_path / "toy.npz", lambda _, arrays: arrays.get("x", None, (None,)))
