"""Export an edited model as an ordinary transformers checkpoint that is proved equal to the evaluated model.

The folder is written under a temporary name, loaded in a fresh process by plain transformers, compared bit for bit (`proof`), and
only then renamed; a kill or a full disk leaves no incomplete checkpoint under the final name.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm_analysis.assets import BUNDLED_MODELS, asset
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit, changes_to_json, check_edit
from vlm_analysis.edits.files import save_edit
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.errors import ExportError
from vlm_analysis.evaluation.evaluation import Evaluation, check_same_work
from vlm_analysis.export.card import MANIFEST_FILE, edit_file, model_card, reproduction_command
from vlm_analysis.export.narrow import check_builds, masked_weights
from vlm_analysis.export.probe.make import make_probe, write_probe
from vlm_analysis.export.proof import Proof, prove
from vlm_analysis.export.reload import versions
from vlm_analysis.export.serving.rules import will_it_serve, write_serving
from vlm_analysis.export.shipped import write_shipped
from vlm_analysis.export.target import check_target, staged
from vlm_analysis.files import LOCK, NAMED, file_hash
from vlm_analysis.models.asking import named_ends
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.offload import is_offloaded
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt

_PROCESSOR_FILES = (
    "*processor_config.json",
    "preprocessor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "*.tiktoken",
    "spiece.model",
    "*tokenizer/*.json",  # a second tokenizer in its own folder (InstructBLIP)
    "*tokenizer/vocab*",
    "*tokenizer/*.model",
)
_SHARD = "2GB"  # of a file, where weights are read from disk to be written
_IGNORED: tuple[tuple[tuple[str, ...], Callable[[Any], bool]], ...] = (
    (("temperature", "top_p", "top_k", "min_p", "typical_p"), lambda settings: not settings.do_sample),
    (("early_stopping", "length_penalty"), lambda settings: settings.num_beams in (None, 1)),
)


@dataclass(frozen=True)
class Manifest:
    """The record of an export and its check; written to the folder as `strata-manifest.json`.

    Attributes:
        source, source_revision, source_fingerprint, source_config_hash: the dense model (see `ModelInfo`).
        verified: whether logits over `probe_tokens` tokens of a fixed prompt, and the greedy answer to it, were equal to the
            evaluated model's, bit for bit, when plain transformers loaded the folder.
        fresh_process: whether a fresh process loaded it.
        generated_answer, reloaded_answer: that answer, of the evaluated model and of the fresh process; `generated_tokens` long.
        reproduce: a shell command that reproduces the checkpoint from the source and the edit file.
        files: sha256 of every file, by name.
        changes: the changes of the edit (see `Edit`); empty in manifests of version 0.1.
    """

    source: str
    source_revision: str | None
    source_fingerprint: str
    source_config_hash: str | None
    dropped: tuple[int, ...]
    n_layers_before: int
    n_layers_after: int
    parameters_before: int
    parameters_after: int
    verified: bool
    fresh_process: bool
    probe_tokens: int
    vocabulary: int
    generated_answer: str
    reloaded_answer: str
    generated_tokens: int
    python_version: str
    torch_version: str
    transformers_version: str
    reproduce: str
    written: str
    files: dict[str, str]
    changes: list[dict[str, Any]] = field(default_factory=list)


def export_checkpoint(
    loaded: LoadedModel,
    edit: Edit,
    folder: Path,
    *,
    verify: bool = True,
    on_progress: Progress | None = None,
    evidence: Evaluation | None = None,
    reference: Evaluation | None = None,
    probe: Sequence[Prompt] | None = None,
    masked: bool = False,
) -> Manifest:
    """Write the edited model to `folder` as a checkpoint for plain transformers, and prove that it equals the evaluated model.

    Args:
        loaded: the dense model.
        edit: the edit to apply, such as a prune mask. Where vision tokens skip layers, the folder holds `strata_vision.py`, which lets
            them skip those of the model that plain transformers loads.
        folder: a new or empty folder.
        verify: load the written checkpoint in a fresh process and compare its logits and a greedy answer with the edited view's,
            bit for bit. This needs memory for the edited model beside the dense one.
        on_progress: called at each stage; raising `Cancelled` in it stops the export and removes what was written.
        evidence: the evaluation of this edit on this model, for the model card.
        reference: the dense evaluation on the same prompts; with it the card shows retention.
        probe: prompts to choose the probe of; up to 8 of them go into the folder with their pictures and the edited model's answers, for
            `probe_server`. Without any there is no probe, and none where vision tokens skip layers, as no server lets them.
        masked: write narrow layers (`Narrow`) as zeros in weights of the dense shapes: a stock class loads such a checkpoint whatever the
            widths, and it is as large as the dense one. Without it they are cut, which takes equally wide layers.

    Raises:
        ExportError: the folder is not empty or cannot be written, the evidence is of another edit or model, the fresh process failed,
            the reloaded model differs, or no stock class builds layers of these widths.
        EvaluationError: evidence and reference are not of the same prompts.
        EditError: the edit does not fit the model.
    """
    progress = on_progress or no_progress
    _check_exportable(loaded)
    folder = check_target(Path(folder))
    _check_evidence(loaded, edit, evidence, reference)
    edit = masked_weights(edit) if masked else edit
    _check_served(edit, loaded.n_layers)
    progress(0, 4, "applying the edit")
    view = apply_edit(loaded.model, edit)
    check_builds(view, edit)
    with staged(folder) as part:
        progress(1, 4, "writing weights")
        _make_savable(view.generation_config, loaded.name)
        _stop_as_evaluated(view.generation_config, loaded)
        _save_weights(view, part)
        _copy_processor(loaded, part)
        ships = write_shipped(edit, view, part)
        progress(2, 4, "loading it in a fresh process to compare" if verify else "not comparing it")
        proof = prove(loaded, view, part, progress) if verify else None
        told = "" if ships else _write_probe(loaded, view, part, probe or (), progress)  # no server applies the module
        progress(3, 4, "writing the manifest")
        edit = _as_applied(loaded, edit)
        command = reproduction_command(_source(loaded), loaded.info, edit_file(edit))
        served = will_it_serve(loaded, edit, ".", proved=proof.versions["transformers"] if proof else "")
        write_serving(served, part)
        save_edit(edit, part / edit_file(edit))
        card = model_card(edit, loaded.info, command, evidence, reference, served=served, probe=told)
        (part / "README.md").write_text(card, "utf-8")
        manifest = _write_manifest(loaded, view, edit, part, proof, command)
    progress(4, 4, "exported")
    return manifest


def _save_weights(view: Any, folder: Path) -> None:
    """Write the weights; those that are kept on disk pass through memory a file at a time."""
    more = {"max_shard_size": _SHARD} if is_offloaded(view) else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
        view.save_pretrained(folder, safe_serialization=True, **more)


def _check_exportable(loaded: LoadedModel) -> None:
    if loaded.quantiser is not None:
        raise ExportError(
            f"{loaded.name!r} cannot be exported: its weights are quantised with {loaded.quantiser}, and transformers does not "
            "write such weights again. Export the mask, and apply it to the checkpoint this one was made from."
        )
    if type(loaded.model).__module__.startswith("transformers_modules."):
        raise ExportError(
            f"{loaded.name!r} cannot be exported: expected a model class of transformers, got code that comes with the checkpoint, "
            "which plain transformers does not run. Export the mask, and apply it to this checkpoint."
        )


def _write_probe(loaded: LoadedModel, view: Any, folder: Path, prompts: Sequence[Prompt], progress: Progress) -> str:
    """Write the probe of the edited model into the folder and return what it can tell; "" where none can be made."""
    made = make_probe(
        loaded, view, prompts, lambda done, total, message: progress(3, 4, f"{message}: {done} of {total}")
    )
    if made is None:
        return ""
    write_probe(*made, folder)
    return made[0].words()


def _check_evidence(loaded: LoadedModel, edit: Edit, evidence: Evaluation | None, reference: Evaluation | None) -> None:
    if evidence is None:
        return
    if evidence.edit != edit or evidence.model.fingerprint != loaded.fingerprint:
        raise ExportError(
            f"The evidence is not this export's: expected an evaluation of {loaded.name} that {edit.words()}, got one of "
            f"{evidence.model.name} that {evidence.edit.words()}. Evaluate this edit."
        )
    if reference is not None:
        check_same_work(evidence, reference)
        if not reference.is_dense:
            raise ExportError(
                f"Retention is against the dense model: expected its evaluation, got one that {reference.edit.words()}."
            )


def _check_served(edit: Edit, n_layers: int) -> None:
    """Raise unless this is an edit whose checkpoint a stock class of transformers loads, with a module beside it or without."""
    check_edit(edit, n_layers)
    for change in edit.changes:
        reason = change.unserved([layer for layer, _ in edit.steps.layers])
        if reason and not isinstance(change, Vision):  # a module beside the checkpoint applies it
            way = (
                "Export it with masked weights (masked=True, --masked), or save"
                if isinstance(change, Narrow)
                else "Save"
            )
            raise ExportError(
                f"This edit cannot be exported: expected changes that plain transformers loads, got one that {change.words()}: "
                f"{reason}. {way} the edit itself, and apply it to the dense model."
            )


def _as_applied(loaded: LoadedModel, edit: Edit) -> Edit:
    """Return the edit with this model; the provenance names another model that it was made for."""
    provenance = dict(edit.provenance)
    if edit.model is not None and edit.model.fingerprint != loaded.fingerprint:
        provenance["made_for"] = {"name": edit.model.name, "fingerprint": edit.model.fingerprint}
    return replace(edit, model=loaded.info, provenance=provenance)


def _source(loaded: LoadedModel) -> str:
    """Return what `load_model` takes to load the source again: a hub id, or a folder by its name."""
    bundled = next((name for name in BUNDLED_MODELS if loaded.source == str(asset(name))), None)
    if bundled is not None:
        return bundled
    folder = Path(loaded.source)
    if not folder.is_dir():
        return loaded.source
    return loaded.name if folder.parent.name == "snapshots" else f"./{loaded.name}"  # in the Hub's cache, its id


def _make_savable(settings: Any, name: str) -> None:
    """Unset ignored settings of a generation configuration: transformers loads them but refuses to save them."""
    if settings is None:
        return
    for flags, ignored in _IGNORED:
        if ignored(settings):
            for flag in flags:
                setattr(settings, flag, None)
    try:
        settings.validate(strict=True)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"The generation configuration of {name} cannot be saved: expected one that transformers accepts, got: {reason} "
            "Fix generation_config.json of the source and load it again."
        ) from error


def _stop_as_evaluated(settings: Any, loaded: LoadedModel) -> None:
    """Name the token with which the chat template ends an answer, where the source's settings name other ones only."""
    named = named_ends(loaded.model, loaded.processor)
    if settings is not None and named and loaded.end_tokens[0] not in named:
        settings.eos_token_id = list(loaded.end_tokens)


def _copy_processor(loaded: LoadedModel, target: Path) -> None:
    """Copy the source's processor files unchanged: saving them again could write a class name that plain transformers does not know.

    An adapter has the files of its base, and the chat template that lies beside it.
    """
    source = Path(loaded.base or loaded.source)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(loaded.source, revision=loaded.revision, allow_patterns=list(_PROCESSOR_FILES)))
    for pattern in _PROCESSOR_FILES:
        for path in source.glob(pattern):
            if path.is_file():
                copy = target / path.relative_to(source)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
    if loaded.base and isinstance(template := loaded.processor.chat_template, str):
        for name in ("chat_template.json", "chat_template.jinja"):
            (target / name).unlink(missing_ok=True)
        (target / "chat_template.jinja").write_text(template, "utf-8")


def _write_manifest(
    loaded: LoadedModel, view: Any, edit: Edit, folder: Path, proof: Proof | None, command: str
) -> Manifest:
    info, library_versions = loaded.info, proof.versions if proof else versions()
    manifest = Manifest(
        source=info.name,
        source_revision=info.revision,
        source_fingerprint=info.fingerprint,
        source_config_hash=info.config_hash,
        dropped=edit.dropped,
        n_layers_before=edit.n_layers,
        n_layers_after=len(edit.steps.layers),
        parameters_before=loaded.n_parameters,
        parameters_after=_n_saved_parameters(view),
        verified=proof is not None,
        fresh_process=proof is not None,
        probe_tokens=proof.probe_tokens if proof else 0,
        vocabulary=proof.vocabulary if proof else 0,
        generated_answer=proof.generated_answer if proof else "",
        reloaded_answer=proof.reloaded_answer if proof else "",
        generated_tokens=proof.generated_tokens if proof else 0,
        python_version=library_versions["python"],
        torch_version=library_versions["torch"],
        transformers_version=library_versions["transformers"],
        reproduce=command,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        files=dict(_hashes(folder)),
        changes=changes_to_json(edit),
    )
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", "utf-8")
    return manifest


def _n_saved_parameters(view: Any) -> int:
    """Return the number of saved parameters: a view may save only part of a shared weight."""
    state = view.state_dict()
    return sum(state[name].numel() for name, _ in view.named_parameters())


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (LOCK, NAMED)):
        yield path.relative_to(folder).as_posix(), file_hash(path)
