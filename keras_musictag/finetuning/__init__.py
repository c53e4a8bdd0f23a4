"""Fine-tuning: from a tagger and anybody's labelled sounds to a tagger for these labels.

`settings` has every number that can be chosen, `data` turns what is given into clips to learn from and to validate on,
`stages` makes and trains the network, `run` puts them together, and `report` says how good the result is.
"""

from .data import FineTuneData as FineTuneData
from .data import FineTuneError as FineTuneError
from .report import FineTuneReport as FineTuneReport
from .run import FineTuned as FineTuned
from .run import fine_tune as fine_tune
from .run import plan as plan
from .settings import FineTuneSpec as FineTuneSpec
