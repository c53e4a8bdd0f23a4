"""Export of taggers to ONNX, LiteRT, OpenVINO and SavedModel.

Each file is run on its own runtime before it is kept, and its probabilities are compared with those of Keras at
float32. A file that does not run, or whose probabilities differ, is deleted.
"""

from .exporter import Export as Export
from .exporter import export as export

__all__ = ["Export", "export"]
