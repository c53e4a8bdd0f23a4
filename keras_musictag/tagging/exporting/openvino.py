"""Export to OpenVINO: `model.xml` and `model.bin`, converted from the ONNX graph.

Quantized layers stay quantized. float16 weights stay float16, and the arithmetic may then be 16-bit too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtimes import import_openvino

if TYPE_CHECKING:
    import onnx


def write(model: onnx.ModelProto, folder: Path, metadata: dict[str, str]) -> None:
    """Write an ONNX model as OpenVINO IR, with `metadata` as runtime information.

    Raises:
        OSError: the files cannot be written.
    """
    ov = import_openvino()
    converted = ov.Core().read_model(model.SerializeToString())
    for key, value in metadata.items():
        converted.set_rt_info(value, ["keras_musictag", key])
    ov.save_model(converted, folder / "model.xml", compress_to_fp16=False)
