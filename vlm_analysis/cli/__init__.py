"""The command `strata`: a subcommand gathers its arguments, makes one call of the library, and prints the result.

`base` is what all subcommands share, `arguments` what several take. `lookup` finds what an argument names, `results` turns values into a
Result, `output` prints and writes it. The subcommands are in the other modules.
"""

from vlm_analysis.cli import dashboard, skipping, conditions, choosing, width, contesting, measuring, recovering  # noqa: F401, I001 - in the order of `--help`
from vlm_analysis.cli import judging, looking, claiming, reporting  # noqa: F401
from vlm_analysis.cli import sharding as sharding
from vlm_analysis.cli.base import main as main, strata as strata
