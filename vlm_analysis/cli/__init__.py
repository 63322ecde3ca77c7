"""The command `strata`: a subcommand gathers its arguments, makes one call of the library, and prints the result.

`base` is what all subcommands share, `lookup` finds what an argument names, `results` turns values into a Result, `output` prints and
writes it. The subcommands are in the other modules.
"""

from vlm_analysis.cli import choosing, dashboard, judging, looking, measuring  # noqa: F401 - each adds its subcommands
from vlm_analysis.cli.base import main as main, strata as strata
