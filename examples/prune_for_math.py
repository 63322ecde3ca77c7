"""Drop three layers that math prompts need least, look at what breaks in both domains, and export the model.

python examples/prune_for_math.py [FOLDER]
"""

import sys
from pathlib import Path

from vlm_analysis import evaluate, export_checkpoint, load_model, make_mask, open_prompts, record, score_layers

loaded = load_model("pocket-vl")  # or a folder, or a Hub id
prompts = open_prompts("math")[:12] + open_prompts("general")[:12]  # or your own: a folder, a table, a zip

recording = record(loaded, prompts)
scores = score_layers(recording, "target-aware", target="math")
mask = make_mask(scores, "first-k", 3, locks=loaded.locks)

dense = evaluate(loaded, prompts)
pruned = evaluate(loaded, prompts, mask, reference=dense)
print(f"The mask {mask.words()}.")
print(pruned.by_domain[["exact_match", "answer_nll", "kl_to_dense"]].round(3).to_string())

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "pruned-for-math")
manifest = export_checkpoint(loaded, mask, folder, evidence=pruned, reference=dense)
print(
    f"{folder} holds {manifest.n_layers_after} layers; loaded in a fresh process it gave the same logits: {manifest.verified}."
)
