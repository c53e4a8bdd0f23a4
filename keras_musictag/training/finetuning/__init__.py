"""Fine-tuning: from a tagger and anybody's labelled sounds to a tagger for these labels.

`settings` has every number that can be chosen, `data` turns what is given into clips to learn from and to validate on,
`stages` makes and trains the network, `run` puts them together, and `report` says how good the result is.
"""

from .fine_tune_report import FineTuneReport as FineTuneReport
from .fitting import FineTuned as FineTuned
from .fitting import fine_tune as fine_tune
from .fitting import plan as plan
from .labelled_data import FineTuneData as FineTuneData
from .labelled_data import FineTuneError as FineTuneError
from .settings import FineTuneSpec as FineTuneSpec
