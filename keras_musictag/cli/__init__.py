"""The command `keras-musictag`.

Results go to standard output, everything else to standard error. Exit codes: 0 all went well, 1 a file could not be
tagged or a check failed, 2 the command itself was wrong (unknown model, missing weights, bad option).
"""

# Importing a module adds its commands to `main`.
from . import benchmark as benchmark
from . import completion as completion
from . import data as data
from . import download as download
from . import evaluate as evaluate
from . import export as export
from . import finetune as finetune
from . import library as library
from . import listen as listen
from . import probe as probe
from . import push as push
from . import search as search
from . import serve as serve
from . import tag as tag
from . import train as train
from . import zoo as zoo
from .common import main as main

__all__ = ["main"]
