"""Compare what many criteria would drop: choose masks on one half of the prompts, report on the other, save the table.

python examples/compare_masks.py [TABLE.csv]
"""

import sys
from pathlib import Path

from vlm_analysis import compare_masks, load_model, many_masks, mask_table, open_prompts, record, split_in_halves

loaded = load_model("pocket-vl")
prompts = open_prompts("math")[:16] + open_prompts("general")[:16]
choose, report = split_in_halves(prompts)

recording = record(loaded, choose)
criteria = ("block-influence", "target-aware", "worst-case")
ways, missing = many_masks(recording, range(1, 4), criteria=criteria, locks=loaded.locks)
for method, reason in missing.items():
    print(f"{method} is left out: {reason}")

comparison = compare_masks(loaded, report, ways, recording=recording)
table = mask_table(comparison).sort_values("worst", ascending=False)
print(table[["dropped", "worst", "parameters_left", "on_front"]].head().to_string(index=False))

path = Path(sys.argv[1] if len(sys.argv) > 1 else "masks.csv")
table.to_csv(path, index=False)
print(f"{path} holds all {len(table)} masks.")
