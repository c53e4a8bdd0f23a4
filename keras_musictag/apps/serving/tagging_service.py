"""Tag audio files for the page: takes a file and names of models, and returns tags and taggrams as plain JSON.

Independent of the page. A file is decoded once per sample rate, up to the limit; taggers are loaded at first use, and
kept.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...audio import reading as audio
from ...audio.demo import demo_clip
from ...errors import AudioError, MusicTagError, UnknownModelError
from ...models.registry import DEFAULT_MODEL, list_models
from ...models.vocabulary import OWN_TAGS

if TYPE_CHECKING:
    import numpy as np

    from ...tagging.base_tagger import BaseTagger

    _Decoded = dict[tuple[int, str], tuple[np.ndarray, list[str]]]  # rate and resampler -> samples and notes

_TEST_MODEL = "tiny"  # offered only if named
_MAX_WINDOWS = 60  # of a taggram: about one per 8 pixels; takes musicnet_crnn 1.2 s on 2 cores


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits for requests.

    Attributes:
        megabytes: maximum size of a file.
        minutes: maximum length of the audio; the rest is ignored, with a note on the page.
        waiting: maximum number of requests in the queue; more are rejected.

    Raises:
        ValueError: one of them is not positive.

    Example:
        >>> Limits(minutes=2).megabytes
        50.0
    """

    megabytes: float = 50.0
    minutes: float = 10.0
    waiting: int = 32

    def __post_init__(self) -> None:
        """Validate the limits."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be a positive number; got {value!r}.")


class TaggingService:
    """Tag uploaded files with several models, each loaded at first use.

    Attributes:
        models: names of the models; the first is the default.
        limits: see `Limits`.
    """

    def __init__(self, models: Sequence[str] = (), *, runtime: str | None = None, limits: Limits | None = None) -> None:
        """Load nothing yet.

        Args:
            models: names, folders or Hub addresses, for `keras_musictag.load`; by default all models of the zoo that
                have weights.
            runtime: as in `keras_musictag.load`.
            limits: by default those of `Limits`.
        """
        self.models = tuple(dict.fromkeys(models)) or offered()
        self.limits = limits or Limits()
        self._runtime = runtime
        self._taggers: dict[str, BaseTagger] = {}
        self._loading = threading.Lock()

    @functools.cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Data set of the tags -> models with these tags; `"own tags"` last. Loads no model.

        Example:
            >>> TaggingService(["tiny", "vgg_mtt", "vgg_msd", "musicnn_mtt"]).groups["MagnaTagATune"]
            ('vgg_mtt', 'musicnn_mtt')
        """
        from ...loading import find_spec

        found: dict[str, list[str]] = {}
        for model in self.models:
            try:
                title = find_spec(model).vocabulary.title
            except MusicTagError:  # reported when the model is used
                title = OWN_TAGS
            found.setdefault(title, []).append(model)
        if OWN_TAGS in found:
            found[OWN_TAGS] = found.pop(OWN_TAGS)  # move to the end
        return {title: tuple(names) for title, names in found.items()}

    def tagger(self, model: str) -> BaseTagger:
        """Return the tagger of a name; load it at first use.

        Raises:
            UnknownModelError: the name is not in `models`.
            MusicTagError: the model cannot be loaded; see `keras_musictag.load`.
        """
        if model not in self.models:
            raise UnknownModelError(f"This server has no model {model!r}. It has: {', '.join(self.models)}.")
        if model not in self._taggers:  # loaded taggers need not wait for a download
            from ...loading import load

            with self._loading:
                if model not in self._taggers:
                    self._taggers[model] = load(model, runtime=self._runtime)
        return self._taggers[model]

    def warm_up(self) -> None:
        """Load the first model and tag the bundled clip, so that the first request is fast.

        Raises:
            MusicTagError: the model cannot be loaded.
        """
        self.tagger(self.models[0]).tag(demo_clip())

    def answer(self, path: str | os.PathLike[str], models: Sequence[str]) -> dict[str, Any]:
        """Tag a file with some models. Errors of the file or of a model are part of the result.

        Args:
            path: path of the file; the result has only its name.
            models: names of models.

        Returns:
            Plain JSON: `file`, and either `error` or `seconds`, `note` (empty, or what was left out) and `results`. A
            result has `model`, and either `error` or `tags` (tag to probability, most probable first), `kinds` (tag to
            kind; empty if unknown), `notes` (remarks on the audio) and `taggram` (as in `Taggram.to_dict`).
        """
        path = Path(path)
        answer: dict[str, Any] = {"file": path.name}
        try:
            if path.stat().st_size > self.limits.megabytes * 1e6:
                return {**answer, "error": f"{path.name} is larger than {self.limits.megabytes:g} MB. Cut it."}
            decoded: _Decoded = {}
            results = [self._result(path, model, decoded) for model in dict.fromkeys(models)]
        except FileNotFoundError:  # deleted because of its age; includes AudioNotFoundError
            return {**answer, "error": f"{path.name} was deleted. Upload it again."}
        except AudioError as error:
            return {**answer, "error": str(error).replace(str(path), path.name)}
        seconds = max((len(y) / sr for (sr, _), (y, _) in decoded.items()), default=0.0)
        limit = self.limits.minutes * 60
        note = f"Only the first {self.limits.minutes:g} minutes were used." if seconds > limit else ""
        return {**answer, "seconds": round(min(seconds, limit), 3), "note": note, "results": results}

    def _result(self, path: Path, model: str, decoded: _Decoded) -> dict[str, Any]:
        try:
            tagger = self.tagger(model)
        except MusicTagError as error:
            return {"model": model, "error": str(error)}
        settings = tagger.spec.audio
        limit = self.limits.minutes * 60
        key = settings.sr, settings.resampler
        if key not in decoded:  # one second more shows whether the file exceeds the limit
            notes: list[str] = []
            y = audio.load(path, target_sr=settings.sr, resampler=settings.resampler, duration=limit + 1, notes=notes)
            decoded[key] = y, notes
        y, notes = decoded[key]
        y = y[: round(limit * settings.sr)]
        tags, vocabulary = tagger.tag(y, settings.sr), tagger.spec.vocabulary
        taggram = tagger.taggram(y, settings.sr, hop_seconds=max(1.0, len(y) / settings.sr / _MAX_WINDOWS))
        return {
            "model": model,
            "tags": {tag: round(probability, 6) for tag, probability in tags.items()},
            "kinds": dict(zip(vocabulary.names, vocabulary.kinds or (), strict=False)),
            "notes": notes,
            "taggram": taggram.to_dict(),
        }


def offered() -> tuple[str, ...]:
    """Return the models of the registry that have weights, the default first, without the one for tests.

    Example:
        >>> offered()[0]
        'musicnet_crnn'
    """
    names = [name for name in list_models(pretrained=True) if name not in (DEFAULT_MODEL, _TEST_MODEL)]
    return (DEFAULT_MODEL, *names)
