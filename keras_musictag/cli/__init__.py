"""The command `keras-musictag`.

Results go to standard output, everything else to standard error. Exit codes: 0 all went well, 1 a file could not be
tagged or a check failed, 2 the command cannot run (unknown model, missing weights, bad option).

The modules here add commands to `main`; `common.CommandGroup` imports them on demand.
"""

from .common import main as main

__all__ = ["main"]
