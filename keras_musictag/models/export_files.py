"""File names of exported models, by format."""

from __future__ import annotations

EXPORT_FILE = "export.json"
# Format of an export -> its files, in the order of the runtime's arguments.
MODEL_FILES: dict[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "litert": ("model.tflite",),
    "openvino": ("model.xml", "model.bin"),
    "saved_model": ("saved_model",),  # a folder
}
EXPORT_FILES = frozenset({EXPORT_FILE, *(name for files in MODEL_FILES.values() for name in files)})
