"""Write a folder with a web page that tags audio files in the browser: `python docs/browser/build.py OUT`.

OUT gets the page and its modules from this folder, an ONNX export of a model, and onnxruntime-web from the npm
registry, whose checksum is pinned. Serve it with any static file server, e.g. `python -m http.server --directory OUT`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import keras_musictag as kmt

PAGE = ("index.html", "page.js", "tagger.js", "resampling.js", "sample_rate.js")
PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm writes it
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # WebAssembly only, without WebGPU


class BuildError(Exception):
    """The folder cannot be written."""


def fetch(folder: Path) -> Path:
    """Fetch the tarball of onnxruntime-web with npm and return its path.

    Raises:
        BuildError: npm is not installed, or cannot reach its registry.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError(f"npm is needed to fetch {PACKAGE}. Install Node.js, or pass its tarball as --runtime.")
    patience = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=4000"]  # ms; by default over a minute in all
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder), *patience]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise BuildError(f"npm cannot fetch {PACKAGE}. Check the network, or pass its tarball as --runtime.") from error
    return folder / done.stdout.split()[-1]


def unpack(tarball: Path, folder: Path) -> None:
    """Verify the tarball of onnxruntime-web and write the files of `RUNTIME` into a folder.

    Raises:
        BuildError: the checksum is not `SHA512`.
    """
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != SHA512:
        raise BuildError(f"{tarball.name} is not {PACKAGE}: its sha512 is {found}, expected {SHA512}.")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tarball) as archive:
        for name in RUNTIME:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())


def describe(spec: kmt.ModelSpec) -> dict[str, Any]:
    """Return what the page has to know of a model."""
    vocabulary = spec.vocabulary
    return {
        "name": spec.name,
        "vocabulary": vocabulary.title,
        "licence": spec.license,
        "tags": vocabulary.names,
        "kinds": vocabulary.kinds or ["other"] * len(vocabulary.names),
        "sample_rate": spec.audio.sr,
        "least_samples": spec.mel.n_fft,
        "padding": 0 if spec.mel.center else spec.mel.n_fft // 2,  # zeros at both ends of the track
        "grid": 1 if spec.mel.center else spec.mel.hop_length,  # all windows begin at multiples of this
        "window_samples": spec.window_samples,
        "window_step": spec.window_step,
        "remainder": spec.window.remainder,
        "short": spec.window.short,
    }


def build(out: Path, model: str = "musicnet_crnn", runtime: Path | None = None) -> None:
    """Write the folder.

    Args:
        out: folder to write, new or of an earlier build.
        model: what `kmt.load` takes.
        runtime: tarball of onnxruntime-web; fetched by default.

    Raises:
        BuildError: onnxruntime-web cannot be had.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        unpack(runtime or fetch(work), out / "ort")
        tagger = kmt.load(model, runtime="keras")
        tagger.export(work / "export", format="onnx", input="waveform")
        shutil.copy(work / "export" / "model.onnx", out)
    (out / "model.json").write_text(json.dumps(describe(tagger.spec)), encoding="utf-8")
    for name in PAGE:
        shutil.copy(Path(__file__).with_name(name), out)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--model", default="musicnet_crnn", help="model name or saved folder (default: musicnet_crnn)")
    parser.add_argument("--runtime", type=Path, metavar="TARBALL", help=f"{PACKAGE}, fetched before")
    arguments = parser.parse_args()
    try:
        build(arguments.out, arguments.model, arguments.runtime)
    except (BuildError, kmt.MusicTagError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"Serve it: python -m http.server --directory {arguments.out}")


if __name__ == "__main__":
    main()
