"""The benchmarks, in the order of their names; each tells itself from the others by its columns or what they hold."""

from vlm_analysis.prompts.formats.base import Format
from vlm_analysis.prompts.formats.benchmarks import gqa
from vlm_analysis.prompts.formats.benchmarks.ai2d import AI2D
from vlm_analysis.prompts.formats.benchmarks.chartqa import CHARTQA
from vlm_analysis.prompts.formats.benchmarks.docvqa import DOCVQA
from vlm_analysis.prompts.formats.benchmarks.infovqa import INFOVQA
from vlm_analysis.prompts.formats.benchmarks.mathverse import MATHVERSE
from vlm_analysis.prompts.formats.benchmarks.mathvista import MATHVISTA
from vlm_analysis.prompts.formats.benchmarks.mmbench import MMBENCH
from vlm_analysis.prompts.formats.benchmarks.mme import MME
from vlm_analysis.prompts.formats.benchmarks.mmmu import MMMU
from vlm_analysis.prompts.formats.benchmarks.ocrbench import OCRBENCH
from vlm_analysis.prompts.formats.benchmarks.pope import POPE
from vlm_analysis.prompts.formats.benchmarks.realworldqa import REALWORLDQA
from vlm_analysis.prompts.formats.benchmarks.scienceqa import SCIENCEQA
from vlm_analysis.prompts.formats.benchmarks.seed import SEED
from vlm_analysis.prompts.formats.benchmarks.textvqa import TEXTVQA
from vlm_analysis.prompts.formats.benchmarks.vstar import VSTAR

BENCHMARKS: tuple[Format, ...] = (
    AI2D, CHARTQA, DOCVQA, gqa, INFOVQA, MATHVERSE, MATHVISTA, MMBENCH, MME, MMMU, OCRBENCH, POPE, REALWORLDQA, SCIENCEQA, SEED,
    TEXTVQA, VSTAR,
)  # fmt: skip
