"""The measures that pages choose from, by their titles."""

from __future__ import annotations

from vlm_analysis.recording.measures import MEASURES

CKA = "linear_cka"
MEASURE_TITLES = {
    name: row.title for name, row in MEASURES.items() if "layer" in row.axes and name not in ("hsic", "nonfinite")
}
MEASURE_TITLES[CKA] = "Linear CKA"
