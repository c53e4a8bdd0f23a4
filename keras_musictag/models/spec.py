"""Specs of models: frozen dataclasses that read and write `spec.json`.

A spec holds everything the weights depend on (sample rate, spectrogram and windows: `front_end`; the order of the
tags), the location and sha256 of the weights (`sources`), and facts about them (licence, training data, metrics:
`facts`). Nothing here imports Keras, so listing models only reads some JSON.

Units: rates in Hz, lengths of STFT windows in samples, lengths of model windows in frames of `hop_length` samples.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from ..errors import SpecError
from ..utils.fields import build, read_json, require, require_most
from .facts import Latency as Latency
from .facts import TrainingData as TrainingData
from .facts import check_example, check_metric
from .front_end import AudioSpec as AudioSpec
from .front_end import MelSpec as MelSpec
from .front_end import WindowSpec as WindowSpec
from .front_end import check_together
from .sources import WEIGHTS_FILE as WEIGHTS_FILE
from .sources import WeightsSource as WeightsSource
from .sources import parse_hub_uri as parse_hub_uri
from .thresholds import Thresholds as Thresholds
from .vocabulary import KINDS, Vocabulary

SPEC_VERSION = 1
SPEC_FILE = "spec.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


_TEXTS = ("weights_help", "description", "trained_on", "license", "paper", "intended_use", "citation")
_LISTS = {"limits": str, "training_data": TrainingData, "latency": Latency}
# Fields that describe the weights; `retrained` drops them.
_ABOUT_WEIGHTS = ("weights", "weights_help", "description", "trained_on", "license", "metrics", "root",
                  "intended_use", "limits", "training_data", "latency", "citation", "example",
                  "thresholds")  # fmt: skip
# Fields that the claims depend on.
_ABOUT_NETWORK = ("architecture", "config", "mel", "window", "tags")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Description of a model: network, front end, tags, weights and facts about them.

    Attributes:
        name: name of the model, the argument of `load`.
        architecture: registered builder, e.g. `"musicnn"`.
        config: keyword arguments of the builder besides `num_tags` and `input_shape`.
        audio, mel, window: front end that the weights were trained with.
        tags: names as in the training data, in the order of the outputs.
        kinds: tag -> kind, one of `vocabulary.KINDS`, for tags that are not in the package's lists. The kind of other
            tags is `other`.
        weights: source of the weights; `None` if there are none yet.
        weights_help: how to get or train the weights, shown if there are none.
        description: one line.
        trained_on: data set, licence and split that the weights were trained on.
        license: SPDX identifier of the licence of the weights.
        paper: reference or URL.
        claims: figures that `keras-musictag validate` checks: `parameters`, `trainable_parameters`, `input_shape`,
            `num_tags`, `layers` (widths by kind, `{"GRU": [86, 32]}`), `reduction` (`{"against": name, "percent": n}`).
        metrics: measured scores; each has at least `dataset`, `split`, `n` and `source`. `roc_auc` and `pr_auc` may
            have 95 % intervals (`roc_auc_low`, ...). A student may have `correlation` with its teacher and
            `teacher_roc_auc`, against the tenth of the tracks that the teacher scores highest; both are means over
            tags. Optional: `roc_auc_per_tag`, `pr_auc_per_tag`, `machine`, `date`, `note`, `url` of the source.
        intended_use: suitable and unsuitable uses.
        limits: known limits of the weights, one or two sentences each.
        training_data: training data and teachers with their licences.
        latency: measured tagging times.
        citation: references to cite, as BibTeX or text.
        taggram_seconds: seconds of audio per row of a taggram, if less than a window was measured to resolve more;
            `None` for whole windows.
        thresholds: values of `threshold="auto"`, chosen on held-out labelled clips; `None` if there are none.
        example: the most probable tags of the first section of `demo_clip` and their probabilities, in that order.
        root: folder of relative weight files; not part of the JSON.
    """

    name: str
    architecture: str
    audio: AudioSpec
    mel: MelSpec
    window: WindowSpec
    tags: tuple[str, ...]
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: WeightsSource | None = None
    weights_help: str = ""
    description: str = ""
    trained_on: str = ""
    license: str = ""
    paper: str = ""
    claims: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    training_data: tuple[TrainingData, ...] = ()
    latency: tuple[Latency, ...] = ()
    citation: str = ""
    taggram_seconds: float | None = None
    thresholds: Thresholds | None = None
    example: Mapping[str, float] | None = None
    root: Path | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the fields."""
        require(
            self.taggram_seconds is None or 0 < self.taggram_seconds <= 86_400,
            f"taggram_seconds must be positive and at most a day, or None; got {self.taggram_seconds!r}.",
        )
        for field in ("name", "architecture"):
            value = getattr(self, field)
            require(
                isinstance(value, str) and _NAME.fullmatch(value) is not None,
                f"{field} must consist of letters, digits, '.', '_' and '-'; got {value!r}.",
            )
        for field in _TEXTS:
            require(isinstance(getattr(self, field), str), f"{field} must be text; got {getattr(self, field)!r}.")
        for field in ("config", "claims", "kinds"):
            require(
                isinstance(getattr(self, field), Mapping), f"{field} must be an object; got {getattr(self, field)!r}."
            )
        check_together(self.audio, self.mel, self.window)
        require_most("mel.n_mels times window.frames", self.mel.n_mels * self.window.frames, 2**24)
        require_most("Samples of a window", self.window_samples, 2**26)
        for field, value in self.config.items():
            if isinstance(value, int):
                require_most(f"config.{field}", value, 2**16)
        require(len(self.tags) > 0, f"Model {self.name!r} has no tags.")
        require_most("The number of tags", len(self.tags), 2**16)
        for tag in self.tags:
            require(isinstance(tag, str) and bool(tag.strip()), f"Model {self.name!r} has an empty tag: {tag!r}.")
        twice = sorted(tag for tag, count in Counter(self.tags).items() if count > 1)
        require(not twice, f"Model {self.name!r} lists tags twice: {', '.join(twice)}.")
        for metric in self.metrics:
            check_metric(self.name, metric)
        for field, kind in _LISTS.items():
            _require_all(field, getattr(self, field), kind)
        for tag, tag_kind in self.kinds.items():
            require(tag in self.tags, f"kinds names {tag!r}, which is not a tag of the model.")
            require(tag_kind in KINDS, f"kinds[{tag!r}] must be one of {', '.join(KINDS)}; got {tag_kind!r}.")
        if self.thresholds is not None:
            for tag in self.thresholds.values:
                require(tag in self.tags, f"thresholds names {tag!r}, which is not a tag of the model.")
        check_example((*self.tags, *self.vocabulary.names), self.example)

    # --- derived fields ---

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Readable names and kinds of the tags."""
        return Vocabulary.of(self.tags, self.kinds)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Shape of the log-mel input of the network: `(mels, frames)`."""
        return self.mel.n_mels, self.window.frames

    @property
    def window_samples(self) -> int:
        """Samples of one window, including the part of the last frame beyond its hop if `mel.center` is false."""
        return self.window.samples or self.mel.least_samples(self.window.frames)

    @property
    def window_step(self) -> int:
        """Samples from the start of one window to the next, by default."""
        return self.window.samples or self.window.frames * self.mel.hop_length

    @property
    def window_seconds(self) -> float:
        """Seconds from the start of one window to the next, by default."""
        return self.window_step / self.audio.sr

    # --- other weights ---

    def retrained(self, **changes: Any) -> Self:
        """Return the spec of the same network without weights and the fields that describe them.

        Name, architecture, config, front end, tags and paper are kept, and so are the claims if the network stays the
        same. Weights, description, licence, training data, metrics, latency, limits, intended use, citation and
        example are dropped.

        Args:
            changes: fields to set, as in `dataclasses.replace`.

        Raises:
            SpecError: the new spec is invalid.

        Example:
            >>> import keras_musictag as kmt
            >>> mine = kmt.model_info("musicnn_mtt").retrained(tags=("dub", "garage"), trained_on="my records")
            >>> mine.architecture, mine.tags, mine.license, mine.metrics, mine.claims
            ('musicnn', ('dub', 'garage'), '', (), {})
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.name in _ABOUT_WEIGHTS}
        if tuple(changes.get("tags", self.tags)) != self.tags:
            defaults["kinds"] = {}
        new = dataclasses.replace(self, **{**defaults, **changes})
        same = all(getattr(new, field) == getattr(self, field) for field in _ABOUT_NETWORK)
        return new if same or "claims" in changes else dataclasses.replace(new, claims={})

    # --- JSON ---

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for `json.dump`."""
        fields = dataclasses.asdict(dataclasses.replace(self, root=None))
        del fields["root"]
        if not self.kinds:
            del fields["kinds"]
        if self.thresholds is None:
            del fields["thresholds"]
        lists = {field: list(value) for field, value in fields.items() if isinstance(value, tuple)}
        return {"spec_version": SPEC_VERSION, **fields, **lists}

    def to_json(self) -> str:
        """Return the text of `spec.json`."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, root: Path | None = None) -> Self:
        """Build a spec from the result of `to_dict`.

        Raises:
            SpecError: a field is missing, unknown or invalid.
        """
        require(isinstance(data, Mapping), f"A spec must be a JSON object; got {type(data).__name__}.")
        data = dict(data)
        version = data.pop("spec_version", SPEC_VERSION)
        require(
            version == SPEC_VERSION,
            f"The spec has version {version!r}, but this package reads version {SPEC_VERSION}. Update keras_musictag.",
        )
        nested = {
            "audio": AudioSpec, "mel": MelSpec, "window": WindowSpec, "weights": WeightsSource,
            "thresholds": Thresholds,
        }  # fmt: skip
        for field, kind in nested.items():
            if data.get(field) is not None:
                data[field] = build(kind, data[field], f"{field}.")
        for field in ("tags", "metrics", *_LISTS):
            values = data.get(field) or ()
            require(isinstance(values, (list, tuple)), f"{field} must be a list; got {values!r}.")
            data[field] = tuple(values)
        for field, facts in (("training_data", TrainingData), ("latency", Latency)):
            data[field] = tuple(build(facts, value, f"{field}.") for value in data[field])
        spec = build(cls, {**data, "root": root}, "")
        if spec.weights is not None and spec.weights.kind == "file":
            require(
                not Path(spec.weights.uri).is_absolute(),
                f"weights.uri {spec.weights.uri!r} in a {SPEC_FILE} must be a file name beside it, not a path.",
            )
        return spec

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read `spec.json` of a zoo entry, a saved tagger or a Hub snapshot.

        Raises:
            SpecError: the file does not exist, is not JSON, or is not a valid spec.
        """
        folder = Path(folder)
        path = folder / SPEC_FILE
        try:
            data = read_json(path)
        except FileNotFoundError as error:
            raise SpecError(f"{folder} has no {SPEC_FILE}: it is not a saved tagger or zoo entry.") from error
        try:
            return cls.from_dict(data, root=folder)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error


def _require_all(field: str, values: Iterable[Any], kind: type) -> None:
    """Require a tuple of `kind`; strings must not be empty."""
    require(isinstance(values, tuple), f"{field} must be a tuple; got {values!r}.")
    expected = "non-empty text" if kind is str else f"a {kind.__name__}"
    for value in values:
        valid = isinstance(value, kind) and (kind is not str or bool(str(value).strip()))
        require(valid, f"Each item of {field} must be {expected}; got {value!r}.")
