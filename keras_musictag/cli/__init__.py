"""The command `keras-musictag`.

Results go to standard output, everything else to standard error. Exit codes: 0 all went well, 1 a file could not be
tagged or a check failed, 2 the command itself was wrong (unknown model, missing weights, bad option).

The modules here add commands to `main`. They are imported when a command is asked for, see `common.CommandGroup`.
"""

from .common import main as main

__all__ = ["main"]
