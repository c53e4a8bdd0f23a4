"""What a model is, as data: frozen dataclasses that read and write `spec.json`.

A spec says everything the weights depend on (sample rate, mel numbers, window, tag order), where the weights are
and what their bytes hash to, and what is claimed of them (parameters, licence, metrics). Nothing is parsed from a
name and nothing here imports Keras, so listing models costs no more than reading some JSON.

Units: rates in Hz, lengths of STFT windows in samples, lengths of model windows in frames of `hop_length` samples.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

from .errors import SpecError

Scaling = Literal["db", "log10"]
Remainder = Literal["drop", "align"]
Short = Literal["repeat", "pad"]

SPEC_VERSION = 1
SPEC_FILE = "spec.json"
WEIGHTS_FILE = "weights.safetensors"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names and revisions as the Hub allows them: no part begins with a dot, so none can climb out of a folder.
_HUB = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?")
_HTTPS = re.compile(r"https://[^/?#\s]+(?:/[^?#\s]*)?/(?P<file>\w[\w.+-]*)")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


def _require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    _require(value in choices, f"{what} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def _require_count(what: str, value: object, least: int = 1) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"{what} must be a whole number of at least {least}; got {value!r}.",
    )


# === Front end ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """How a sound becomes samples.

    Attributes:
        sr: sample rate in Hz that the model was trained at.
        resampler: soxr quality, in librosa's words. The choice is audible to a model: it moves the top mel bands
            by up to 1.9 log10 units.
    """

    sr: int
    resampler: str = "soxr_hq"

    def __post_init__(self) -> None:
        """Reject rates and resamplers that cannot be."""
        _require_count("audio.sr", self.sr, 1000)
        _require_choice("audio.resampler", self.resampler, ("soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelSpec:
    """The numbers of a log-mel spectrogram: librosa's names, librosa's defaults.

    Attributes:
        n_fft: FFT length in samples.
        hop_length: samples from one frame to the next.
        n_mels: mel bands.
        win_length: window length in samples, `None` for `n_fft`.
        window: window function (`scipy.signal.get_window` name).
        fmin: lowest frequency in Hz.
        fmax: highest frequency in Hz, `None` for half the sample rate.
        htk: HTK's mel formula instead of Slaney's.
        norm: `"slaney"` divides each filter by its bandwidth in Hz, `None` leaves peaks at 1.
        power: exponent of the magnitude, 2.0 for power.
        scaling: `"db"` is `librosa.power_to_db`, `"log10"` is `log10(1 + gain * mel)`, `None` leaves power.
        ref: 0 dB in the `"db"` scaling.
        amin: floor of the `"db"` scaling.
        top_db: dynamic range kept by the `"db"` scaling, per clip; `None` keeps all.
        gain: factor in the `"log10"` scaling.
    """

    n_fft: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    win_length: int | None = None
    window: str = "hann"
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    norm: Literal["slaney"] | None = "slaney"
    power: float = 2.0
    scaling: Scaling | None = "db"
    ref: float = 1.0
    amin: float = 1e-10
    top_db: float | None = None
    gain: float = 10_000.0

    def __post_init__(self) -> None:
        """Reject numbers that no spectrogram can have."""
        _require_count("mel.n_fft", self.n_fft, 2)
        _require_count("mel.hop_length", self.hop_length)
        _require_count("mel.n_mels", self.n_mels)
        if self.win_length is not None:
            _require_count("mel.win_length", self.win_length)
            _require(
                self.win_length <= self.n_fft, f"mel.win_length {self.win_length} is longer than n_fft {self.n_fft}."
            )
        _require_choice("mel.norm", self.norm, ("slaney", None))
        _require_choice("mel.scaling", self.scaling, (*get_args(Scaling), None))
        _require(self.power > 0, f"mel.power must be positive; got {self.power!r}.")
        _require(
            self.amin > 0 and self.ref > 0, f"mel.amin and mel.ref must be positive; got {self.amin!r}, {self.ref!r}."
        )
        _require(self.top_db is None or self.top_db >= 0, f"mel.top_db must not be negative; got {self.top_db!r}.")
        _require(self.fmin >= 0, f"mel.fmin must not be negative; got {self.fmin!r}.")
        _require(self.fmax is None or self.fmax > self.fmin, f"mel.fmax {self.fmax!r} is not above fmin {self.fmin!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How a track is cut into the windows the network sees.

    Attributes:
        frames: spectrogram frames per window.
        remainder: what a track leaves over after whole windows: `"drop"` it (as musicnn was published) or `"align"`
            one more window with the track's end.
        short: what becomes of a track shorter than a window: `"repeat"` it until it fills one, or `"pad"` with zeros.
    """

    frames: int
    remainder: Remainder = "align"
    short: Short = "repeat"

    def __post_init__(self) -> None:
        """Reject unknown policies."""
        _require_count("window.frames", self.frames)
        _require_choice("window.remainder", self.remainder, get_args(Remainder))
        _require_choice("window.short", self.short, get_args(Short))


# === Weights ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where a weight file is and what its bytes hash to.

    Attributes:
        uri: one of `weights.safetensors` (a file beside `spec.json`: embedded in the package, a saved tagger, a Hub
            snapshot), `hf://org/repo@revision` (that repository's `weights.safetensors`), `https://...` (one file),
            or, in specs made in code only, an absolute path.
        sha256: hexadecimal digest of the file. Always required: a source without one cannot be trusted.
        format: `"safetensors"` (keyed by `variable.path`) or the published `"musicnn_h5"`.
        size: bytes, for the progress bar and for people.
    """

    uri: str
    sha256: str
    format: Literal["safetensors", "musicnn_h5"] = "safetensors"
    size: int | None = None

    def __post_init__(self) -> None:
        """Reject sources that are not pinned or reach outside their folder."""
        _require(
            bool(self.uri) and isinstance(self.uri, str), f"weights.uri must be a non-empty string; got {self.uri!r}."
        )
        _require(
            isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256) is not None,
            f"weights.sha256 must be 64 lower-case hexadecimal digits; got {self.sha256!r}.",
        )
        _require_choice("weights.format", self.format, ("safetensors", "musicnn_h5"))
        if self.size is not None:
            _require_count("weights.size", self.size)
        if self.kind == "hub":
            _, revision = parse_hub_uri(self.uri)
            _require(
                revision is not None,
                f"weights.uri {self.uri!r} is not pinned: add the commit, hf://org/repo@<revision>.",
            )
        if self.kind == "file":
            path = Path(self.uri)
            _require(
                path.is_absolute() or (path.name == self.uri and self.uri not in (".", "..")),
                f"weights.uri {self.uri!r} must be a plain file name beside spec.json, without folders.",
            )
        _require(not self.uri.startswith("http://"), f"weights.uri {self.uri!r} must use https.")
        if self.kind == "https":
            _require(
                _HTTPS.fullmatch(self.uri) is not None,
                f"weights.uri {self.uri!r} must end in a plain file name, without query or fragment.",
            )

    @property
    def kind(self) -> Literal["file", "hub", "https"]:
        """Which door the bytes come through."""
        if self.uri.startswith("hf://"):
            return "hub"
        return "https" if self.uri.startswith(("https://", "http://")) else "file"

    @property
    def filename(self) -> str:
        """Name of the weight file, also in a mirror."""
        return WEIGHTS_FILE if self.kind == "hub" else self.uri.rsplit("/", 1)[-1]


def parse_hub_uri(uri: str) -> tuple[str, str | None]:
    """Split `hf://org/repo@revision` into `("org/repo", "revision" or None)`.

    Raises:
        SpecError: the text is not of that form.

    Example:
        >>> parse_hub_uri("hf://someone/my-tagger@v1.0")
        ('someone/my-tagger', 'v1.0')
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        raise SpecError(f"A Hub address looks like hf://org/repo or hf://org/repo@revision; got {uri!r}.")
    return match["repo"], match["revision"]


# === The whole ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model zoo entry.

    Attributes:
        name: what `load` is called with.
        architecture: registered builder, e.g. `"musicnn"`.
        config: keyword arguments of the builder besides `num_tags` and `input_shape`.
        audio, mel, window: the front end the weights were trained with.
        tags: names in the order of the outputs; the order is the contract.
        weights: where they are; `None` while there are none.
        weights_help: how to get or make the weights, shown where there are none.
        description: one line.
        trained_on: data, licence and split the weights saw.
        license: SPDX identifier of the weights.
        paper: reference or URL.
        claims: figures that `keras-musictag validate` checks: `parameters`, `trainable_parameters`, `input_shape`,
            `num_tags`, `layers` (widths by kind, `{"GRU": [86, 32]}`), `reduction` (`{"against": name, "percent": n}`).
        metrics: measured scores; each names at least `dataset`, `split`, `n` and `source`.
        root: folder that relative weight files are looked up in; not part of the JSON.
    """

    name: str
    architecture: str
    audio: AudioSpec
    mel: MelSpec
    window: WindowSpec
    tags: tuple[str, ...]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: WeightsSource | None = None
    weights_help: str = ""
    description: str = ""
    trained_on: str = ""
    license: str = ""
    paper: str = ""
    claims: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    root: Path | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check names, tags and metrics."""
        for field in ("name", "architecture"):
            value = getattr(self, field)
            _require(
                isinstance(value, str) and _NAME.fullmatch(value) is not None,
                f"{field} must consist of letters, digits, '.', '_' and '-'; got {value!r}.",
            )
        _require(len(self.tags) > 0, f"Model {self.name!r} has no tags.")
        for tag in self.tags:
            _require(isinstance(tag, str) and bool(tag.strip()), f"Model {self.name!r} has an empty tag: {tag!r}.")
        twice = sorted({tag for tag in self.tags if self.tags.count(tag) > 1})
        _require(not twice, f"Model {self.name!r} lists tags twice: {', '.join(twice)}.")
        for metric in self.metrics:
            missing = {"dataset", "split", "n", "source"} - set(metric)
            _require(
                not missing,
                f"A metric of {self.name!r} does not say its {', '.join(sorted(missing))}: {dict(metric)!r}.",
            )

    # --- derived numbers ---

    @property
    def input_shape(self) -> tuple[int, int]:
        """Shape of the log-mel input of the network: `(mels, frames)`."""
        return self.mel.n_mels, self.window.frames

    @property
    def window_samples(self) -> int:
        """Samples one window needs, including the part of the last frame beyond its hop."""
        return (self.window.frames - 1) * self.mel.hop_length + self.mel.n_fft

    @property
    def window_seconds(self) -> float:
        """Seconds from one window's start to the next, in whole-window cutting."""
        return self.window.frames * self.mel.hop_length / self.audio.sr

    # --- JSON ---

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, ready for `json.dump`."""
        fields = dataclasses.asdict(dataclasses.replace(self, root=None))
        del fields["root"]
        return {
            "spec_version": SPEC_VERSION,
            **fields,
            "tags": list(self.tags),
            "metrics": [dict(m) for m in self.metrics],
        }

    def to_json(self) -> str:
        """The text of `spec.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, root: Path | None = None) -> Self:
        """Build a spec from what `to_dict` gave.

        Raises:
            SpecError: a field is missing, unknown or contradicts another.
        """
        _require(isinstance(data, Mapping), f"A spec must be a JSON object; got {type(data).__name__}.")
        data = dict(data)
        version = data.pop("spec_version", SPEC_VERSION)
        _require(
            version == SPEC_VERSION,
            f"This spec is of version {version!r}; this package reads version {SPEC_VERSION}. Update keras_musictag.",
        )
        nested = {"audio": AudioSpec, "mel": MelSpec, "window": WindowSpec, "weights": WeightsSource}
        for field, kind in nested.items():
            if data.get(field) is not None:
                data[field] = _build(kind, data[field], f"{field}.")
        data["tags"] = tuple(data.get("tags") or ())
        data["metrics"] = tuple(data.get("metrics") or ())
        spec = _build(cls, {**data, "root": root}, "")
        if spec.weights is not None and spec.weights.kind == "file":
            _require(
                not Path(spec.weights.uri).is_absolute(),
                f"weights.uri {spec.weights.uri!r} in a {SPEC_FILE} must be a file name beside it, not a path.",
            )
        return spec

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read `spec.json` of a zoo entry, a saved tagger or a Hub snapshot.

        Raises:
            SpecError: there is none, it is not JSON, or it does not describe a model.
        """
        folder = Path(folder)
        path = folder / SPEC_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SpecError(f"{folder} has no {SPEC_FILE}: it is not a saved tagger or zoo entry.") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise SpecError(f"{path} cannot be read as JSON: {error}") from error
        try:
            return cls.from_dict(data, root=folder)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error


def _build(kind: type, data: Any, prefix: str) -> Any:
    """`kind(**data)` with messages that name the JSON fields."""
    _require(isinstance(data, Mapping), f"{prefix.rstrip('.')} must be an object; got {data!r}.")
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - known)
    _require(not unknown, f"Unknown field {prefix}{', '.join(map(str, unknown))}. Known: {', '.join(sorted(known))}.")
    needed = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(needed - set(data))
    _require(not missing, f"Missing field {prefix}{', '.join(missing)}.")
    try:
        return kind(**data)
    except TypeError as error:  # a string where a number is compared, and the like
        raise SpecError(f"Wrong type in {prefix.rstrip('.') or 'spec'}: {error}") from error
