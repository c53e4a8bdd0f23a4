"""Taggers as files for other runtimes: ONNX, LiteRT, OpenVINO and SavedModel.

Each file is run before it is kept, on the runtime that it is for, and its probabilities are compared with those of
Keras at float32: a file that does not run, or says something else, is not written.
"""

from .exporter import Export as Export
from .exporter import export as export

__all__ = ["Export", "export"]
