"""Fine-tuning: make a tagger for new tags from an existing one and labelled clips.

`settings` has all settings, `labelled_data` reads and splits the clips, `stages` makes and trains the network,
`fitting` runs it all, `fine_tune_report` measures the result, and `description` writes its spec.
"""

from .fine_tune_report import FineTuneReport as FineTuneReport
from .fine_tune_run import FineTuned as FineTuned
from .fine_tune_run import fine_tune as fine_tune
from .fine_tune_run import plan as plan
from .labelled_data import FineTuneData as FineTuneData
from .labelled_data import FineTuneError as FineTuneError
from .settings import FineTuneSpec as FineTuneSpec
