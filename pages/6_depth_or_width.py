"""Depth or width? Which kind of edit keeps most at one budget: dropped layers, narrow layers, or a mix."""

from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.session import choose_result
from vlm_analysis.ui.common.shell import begin, go_on
from vlm_analysis.ui.contest.contestform import JOB, contest_form
from vlm_analysis.ui.contest.contestview import contest_view

begin(
    "Depth or width?",
    ":material/swap_horiz:",
    "A [[contest]]: at one [[budget]], the best edit that drops [[layer|layers]], the best that narrows them ([[width]]) and the best "
    "mix, on prompts that none was chosen on.",
)

choose_result("contests", JOB)
contest_form()
contest_view()
go_on("pages/7_export.py", "Go on to Export")
write_address()
