"""README of an export: its files, and how to use them without this package."""

from __future__ import annotations

from ...models.export_files import MODEL_FILES
from ...models.spec import ModelSpec
from ..exported import ExportInfo

_USE = {
    "onnx": """import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
probabilities, *_ = session.run(None, {{"{input}": {array}}})
tags = session.get_modelmeta().custom_metadata_map["tags"].split("\\n")""",
    "openvino": """import numpy as np, openvino
model = openvino.Core().compile_model("model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
probabilities = model({array})["probabilities"]
tags = openvino.Core().read_model("model.xml").get_rt_info(["keras_musictag", "tags"]).value.split("\\n")""",
    "litert": """import numpy as np, zipfile
from ai_edge_litert.interpreter import Interpreter
run = Interpreter("model.tflite", num_threads=2).get_signature_runner()
probabilities = run({input}={array})["probabilities"]
tags = zipfile.ZipFile("model.tflite").read("tags.txt").decode().split("\\n")""",
    "saved_model": """import numpy as np, pathlib, tensorflow as tf
run = tf.saved_model.load("saved_model").signatures["serving_default"]
probabilities = run({input}=tf.constant({array}))["probabilities"]
tags = pathlib.Path("saved_model/assets.extra/tags.txt").read_text().split("\\n")""",
}


def readme(spec: ModelSpec, info: ExportInfo) -> str:
    """Return the Markdown text of an export's README."""
    mels, frames = spec.input_shape
    shape = (spec.window_samples,) if info.input == "waveform" else spec.input_shape
    array = f'np.zeros((1, {", ".join(map(str, shape))}), "float32")'
    meaning = {
        "waveform": f"mono samples in [-1, 1] at {spec.audio.sr} Hz, {spec.window_samples} per window: "
        f"{spec.window_seconds:.2f} s and the rest of the last analysis frame",
        "log_mel": f"log-mel spectrograms of {mels} mels by {frames} frames, with the settings of `spec.json`",
    }[info.input]
    lines = [
        f"# {spec.name}: {info.format}, {info.precision}",
        "",
        f"{spec.description or spec.name} Exported by {info.made_with}.".strip(),
        "",
        f"- Files: {', '.join(f'`{name}`' for name in MODEL_FILES[info.format])}, {info.size / 1e6:.2f} MB. The "
        "metadata of the model has the tags and the preprocessing too.",
        f"- Input `{info.input}`: float32 `(batch, {', '.join(map(str, shape))})`, {meaning}.",
        f"- Output `probabilities`: float32 `(batch, {len(spec.tags)})`, in the order of the tags. A track's tags are "
        "the mean over its windows.",
        f"- Probabilities against Keras at float32, on {info.windows} windows with {info.checked_with}: largest change "
        f"{info.max_change:.1e}, mean {info.mean_change:.1e}.",
    ]
    if info.auc:
        lines.append(
            f"- Macro ROC-AUC on {info.auc['dataset']}, split {info.auc['split']}, n = {info.auc['n']}: "
            f"{info.auc['float32']:.4f} with Keras at float32, {info.auc['export']:.4f} with this file."
        )
    lines += [f"- Licence of the weights: {spec.license or 'not stated'}.", ""]
    if info.format != "saved_model":
        lines += ["```python", "import keras_musictag", 'keras_musictag.load(FOLDER).tag("song.mp3")', "```", ""]
    use = _USE[info.format].format(input=info.input, array=array)
    return "\n".join([*lines, "Without keras_musictag:", "", "```python", use, "```"]) + "\n"
