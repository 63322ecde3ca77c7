"""Glossary: every word of the pages with its meaning, and the criteria, strategies and measures with their formulas."""

from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.shell import begin
from vlm_analysis.ui.glossary.glossaryview import draw_glossary

begin(
    "Glossary",
    ":material/menu_book:",
    "What the words on these pages mean. A word with a dotted underline is explained where it stands: point at it, tap it or tab to it.",
)
draw_glossary()
write_address()
