"""The command `strata`: a subcommand gathers what it is asked, makes one call of the library, and says what came back.

`base` is what all subcommands share, `named` finds what an argument names, `told` puts results into words, rows and pictures. The
subcommands are in the other modules.
"""

from vlm_analysis.cli import choosing, dashboard, judging, looking, measuring  # noqa: F401 - each adds its subcommands
from vlm_analysis.cli.base import main as main, strata as strata
