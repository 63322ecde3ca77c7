"""Overview: the answer of the demo or of one's own story, the demo in one click, and where the work stands."""

from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.shell import begin
from vlm_analysis.ui.overview.overview import demo_card, own_story_card, stages, story_view
from vlm_analysis.ui.overview.owndata import own_data_card

begin(
    "Overview",
    ":material/home:",
    "Which [[layer|decoder layers]] of a vision-language model can go? [[recording|Measure]], [[mask|cut]], see what [[retention|breaks]].",
)
story_view()
demo_card()
own_data_card()
own_story_card()
stages()
write_address()
