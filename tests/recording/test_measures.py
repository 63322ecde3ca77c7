"""Every recorded number against float64 formulas written apart from the package, on four architectures."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from conformance.image_rows import IMAGE
from conformance.images import image_inputs, image_model
from hypothesis import given, strategies as st
from oracles import ask, cosine, group_members, ids_of, qwen_layers, walk

from vlm_analysis import MEASURES, LoadedModel, PromptSet, record
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.recording.measures import DELTAS, axis_lengths, empty_rows, from_triangle, triangle
from vlm_analysis.recording.similarity import PromptStreams, _hsic, activations, fill_row
from vlm_analysis.recording.streams import LayerWatch
from vlm_analysis.words import TOKEN_GROUPS

FLOAT32 = {"rtol": 2e-5, "atol": 2e-6}


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Return the U-statistic of HSIC with linear kernels: the mean over all ordered quadruples of distinct tokens."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    quads = list(itertools.permutations(range(len(x)), 4))
    # Gretton et al. 2005: E[k l] + E[k] E[l] - 2 E_i[E_j k E_q l], each over distinct tokens.
    return float(np.mean([k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q] for i, j, q, r in quads]))


def reference(x: np.ndarray, m: np.ndarray | None, y: np.ndarray) -> dict[str, float]:
    """Return every grouped measure of one layer over the given tokens, (tokens, hidden) float64 each."""
    cosines, sizes, lengths = cosine(x, y), np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    found = {
        "cosine": cosines.mean(),
        "cosine_std": cosines.std(),
        "update": (np.linalg.norm(y - x, axis=1) / sizes).mean(),
        "norm_ratio": (lengths / sizes).mean(),
        "output_rms": np.sqrt((lengths**2).mean()),
    }
    found |= {f"changed {delta}": (1 - cosines >= delta).mean() for delta in DELTAS}
    if m is not None:
        found |= {"attention_cosine": cosine(x, m).mean(), "mlp_cosine": cosine(m, y).mean()}
    return found


def recorded(row: Any, layer: int, group: int) -> dict[str, float]:
    found = {name: row[name][layer, group] for name, measure in MEASURES.items() if measure.axes == ("layer", "group")}
    return found | {f"changed {delta}": row["changed"][layer, group, place] for place, delta in enumerate(DELTAS)}


def assert_row(row: Any, xs: list[Any], ms: list[Any], ys: list[Any], members: dict[str, np.ndarray]) -> None:
    for layer, (x, m, y) in enumerate(zip(xs, ms, ys, strict=True)):
        for group, name in enumerate(TOKEN_GROUPS):
            chosen, found = members[name], recorded(row, layer, group)
            if not chosen.any():
                assert np.isnan(list(found.values())).all()
                continue
            wanted = reference(x[chosen], None if m is None else m[chosen], y[chosen])
            for measure, value in wanted.items():
                np.testing.assert_allclose(
                    found[measure], value, err_msg=f"{measure}, layer {layer}, {name}", **FLOAT32
                )
        vision, text = y[members["vision"]], y[members["text"]]
        both = np.concatenate([vision, text])
        if len(vision):
            distance = np.linalg.norm(vision.mean(0) - text.mean(0)) / np.linalg.norm(both, axis=1).mean()
            np.testing.assert_allclose(row["cross_modal"][layer], distance, **FLOAT32)


class TestPocket:
    def test_every_measure_equals_the_walk_by_hand_deepstack_included(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        recording = record(loaded, few)
        for number, prompt in enumerate(few):
            assert prompt.answer is not None
            answer = ids_of(loaded, prompt.answer)
            inputs = ask(loaded, prompt, answer)
            xs, ys = walk(loaded, inputs)
            ms: list[Any] = []

            def keep(_: Any, args: Any, taken: list[Any] = ms) -> None:
                taken.append(args[0][0].double().numpy())

            norms = [layer.post_attention_layernorm for layer in qwen_layers(loaded.model)]
            handles = [norm.register_forward_pre_hook(keep) for norm in norms]
            walk(loaded, inputs)
            for handle in handles:
                handle.remove()
            assert_row(recording.rows[number], xs, ms, ys, group_members(loaded, inputs, len(answer)))

    def test_hsic_and_cka_equal_the_sums_over_quadruples(self, loaded: LoadedModel, few: PromptSet) -> None:
        short = few[:2]
        recording = record(loaded, short)
        for number, prompt in enumerate(short):
            inputs = ask(loaded, prompt)
            xs, ys = walk(loaded, inputs)
            text = np.flatnonzero(group_members(loaded, inputs, 0)["text"])
            assert len(text) >= 4
            for layer in (0, 1, 8, 15):
                x, y = xs[layer][text], ys[layer][text]
                pairs = ((x, x), (x, y), (y, y))
                wanted = [closed_hsic(a, b) for a, b in pairs]
                found = recording.rows["hsic"][number, layer, TOKEN_GROUPS.index("text")]
                np.testing.assert_allclose(found, wanted, rtol=1e-4)
        hsic = recording.rows["hsic"][:, :, TOKEN_GROUPS.index("text")].sum(axis=0)
        np.testing.assert_allclose(
            recording.linear_cka(None, "text"), hsic[:, 1] / np.sqrt(hsic[:, 0] * hsic[:, 2]), rtol=1e-12
        )

    def test_the_pooled_distance_is_that_of_the_means_over_prompts(self, loaded: LoadedModel, few: PromptSet) -> None:
        recording = record(loaded, few)
        gaps, sizes = [], []
        for prompt in few:
            inputs = ask(loaded, prompt)
            _, ys = walk(loaded, inputs)
            members = group_members(loaded, inputs, 0)
            gaps.append([y[members["vision"]].mean(0) - y[members["text"]].mean(0) for y in ys])
            sizes.append([np.linalg.norm(y, axis=1).mean() for y in ys])
        for domain, chosen in ((None, slice(None)), ("math", slice(0, 3)), ("general", slice(3, 6))):
            wanted = np.linalg.norm(np.mean(gaps[chosen], axis=0), axis=1) / np.mean(sizes[chosen], axis=0)
            np.testing.assert_allclose(recording.cross_modal_distance(domain), wanted, rtol=1e-4)

    def test_sinks_are_the_tokens_far_above_the_median_norm(self, loaded: LoadedModel, few: PromptSet) -> None:
        recording = record(loaded, few[:1])
        _, ys = walk(loaded, ask(loaded, few[0], ids_of(loaded, few[0].answer or "")))
        norms = [np.linalg.norm(y, axis=1) for y in ys]
        assert recording.rows["sinks"][0].tolist() == [int((n > 20 * np.median(n)).sum()) for n in norms]


def closed_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Return the U-statistic in closed form, float64 and without centring."""
    n = len(x)
    k, l = (z @ z.T - np.diag((z * z).sum(1)) for z in (x, y))  # noqa: E741
    cross = k.sum(1) @ l.sum(1)
    return float(((k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3)))


class TestOtherArchitectures:
    """Pre-norm decoders (Idefics3, LLaVA), norms around both parts (Gemma 3), cross-attention (Mllama), a parallel one (Aya)."""

    @pytest.mark.parametrize(
        "kind", ["idefics3", "llava", "gemma3", "mllama", "glm4v", "qwen3_5", "qwen3_vl", "gemma4"]
    )
    def test_every_measure_equals_its_formula(self, kind: str) -> None:
        model, inputs = image_model(kind).eval(), image_inputs(kind)
        layers = list(find_decoder_layers(model))
        seen: dict[tuple[str, int], Any] = {}
        watch = LayerWatch(model)
        for _ in range(2):  # the first pass looks for the middles, the second takes them
            handles = [handle for index, layer in enumerate(layers) for handle in _tapped(layer, index, seen)]
            with torch.inference_mode(), watch.watching(inputs["input_ids"].shape) as streams:
                model(**inputs, use_cache=False)
            for handle in handles:
                handle.remove()
            kinds = inputs["input_ids"][0] == IMAGE
            vision = kinds.numpy()
            last = np.arange(len(vision)) == len(vision) - 1
            members = {
                "vision": vision,
                "text": ~vision,
                "answer": vision & ~vision,
                "last": last,
                "all": vision | ~vision,
            }
            groups = np.stack([members[name] for name in TOKEN_GROUPS])
            row = empty_rows(1, len(layers))[0]
            states = streams.states[:, :, 0]
            prompt = PromptStreams(*states, np.array(streams.ran), np.array(streams.has_middle))
            fill_row(row, prompt, groups)
            made = activations(prompt, groups)
            if made is not None:
                row["cross_modal"] = made[0]
            assert all(streams.ran)
            assert all(streams.has_middle)
            xs, ms, ys = ([seen[part, index] for index in range(len(layers))] for part in ("x", "m", "y"))
            assert_row(row, xs, ms, ys, members)

    def test_a_parallel_layer_has_no_middle(self) -> None:
        from conformance.build import tiny_model

        model = tiny_model("aya_vision", {}).eval()
        watch = LayerWatch(model)
        with torch.inference_mode(), watch.watching(torch.Size([1, 9])) as streams:
            model(input_ids=torch.arange(3, 12)[None], use_cache=False)
        assert all(streams.ran)
        assert not any(streams.has_middle)


def _tapped(layer: Any, index: int, seen: dict[tuple[str, int], Any]) -> list[Any]:
    """Hook a layer and, by their names, the modules whose outputs are added up; m is x plus what attention adds."""
    names = [name for name, _ in layer.named_children()]
    attention = next(name for name in ("self_attn", "cross_attn", "linear_attn") if name in names)
    after = next((name for name in ("post_self_attn_layernorm",) if name in names), None)
    if "pre_feedforward_layernorm" in names:
        after = "post_attention_layernorm"

    def keep(part: str, value: torch.Tensor) -> None:
        seen[part, index] = value[0].detach().double().numpy()

    def start(_: Any, args: Any, kwargs: Any) -> None:
        keep("x", args[0] if args else kwargs["hidden_states"])

    def added(_: Any, __: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        gate = layer.cross_attn_attn_gate.tanh() if hasattr(layer, "cross_attn_attn_gate") else 1
        seen["m", index] = seen["x", index] + (gate * output)[0].detach().double().numpy()

    def end(_: Any, __: Any, output: Any) -> None:
        keep("y", output[0] if isinstance(output, tuple) else output)

    return [
        layer.register_forward_pre_hook(start, with_kwargs=True),
        getattr(layer, after or attention).register_forward_hook(added),
        layer.register_forward_hook(end),
    ]


class TestHsic:
    @given(st.integers(4, 6), st.integers(0, 1000))
    def test_equals_the_mean_over_all_quadruples(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x, y = rng.normal(3, 1, (n, 3)), rng.normal(-2, 5, (n, 3))
        found = _hsic(torch.tensor(x[None]).float(), torch.tensor(y[None]).float(), np.ones((1, n), bool))[0, 0]
        x, y = x.astype(np.float32).astype(float), y.astype(np.float32).astype(float)
        wanted = [unbiased_hsic(a, b) for a, b in ((x, x), (x, y), (y, y))]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)

    def test_fewer_than_four_tokens_give_none(self) -> None:
        x = torch.randn(2, 5, 3)
        found = _hsic(x, x, np.array([[True, True, True, False, False], [True, True, True, True, False]]))
        assert np.isnan(found[:, 0]).all()
        assert np.isfinite(found[:, 1]).all()


class TestShapes:
    def test_a_triangle_and_its_matrix_go_to_and_fro(self) -> None:
        values = np.random.default_rng(0).normal(size=(2, 3, 10))
        matrices = from_triangle(values, 5)
        np.testing.assert_array_equal(triangle(matrices), values)
        np.testing.assert_array_equal(matrices, matrices.swapaxes(-1, -2))
        assert (np.diagonal(matrices, axis1=-2, axis2=-1) == 1).all()
        assert np.isnan(from_triangle(np.full((1, 10), np.nan), 5)).all()

    def test_every_measure_says_what_it_is(self) -> None:
        lengths = axis_lengths(7)
        for name, measure in MEASURES.items():
            assert measure.title, name
            assert measure.formula, name
            assert set(measure.axes) <= set(lengths)
            assert empty_rows(2, 7)[name].shape == (2, *(lengths[axis] for axis in measure.axes))
