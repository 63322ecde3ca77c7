"""Overview: where the work stands, the demo in one click, and its story in pictures."""

from vlm_analysis.ui.common.shell import begin
from vlm_analysis.ui.overview.overview import demo_card, own_story_card, stages, story_view
from vlm_analysis.ui.overview.owndata import own_data_card

begin(
    "Overview",
    ":material/home:",
    "Which decoder layers of a vision-language model can go? Measure, cut, see what breaks.",
)
stages()
demo_card()
own_data_card()
own_story_card()
story_view()
