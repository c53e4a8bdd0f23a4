"""What the page asks for: a sound file and names of models in, tags and taggrams out, as plain JSON.

Knows nothing of the page. Sound is decoded once per model's sample rate, and never more of it than the limit; taggers
are loaded when they are first asked for, and kept.
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

    from ...tagging.base import BaseTagger

    _Decoded = dict[tuple[int, str], tuple[np.ndarray, list[str]]]  # rate and resampler -> sound, and notes on it

_FOR_TESTS = "tiny"  # offered only when it is asked for
_MOST_WINDOWS = 60  # of a taggram: about one per 8 pixels, and 1.2 s of musicnet_crnn on 2 cores


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one user can ask of the server.

    Attributes:
        megabytes: size of a file.
        minutes: of a sound that are used; the rest is left out, and the page says so.
        waiting: requests in the queue; more are refused.

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
        """Check the numbers."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise ValueError(f"{field.name} must be a positive number; got {value!r}.")


class TaggingService:
    """Tags uploaded files with several models, loading each model when it is first used.

    Attributes:
        models: names that can be asked for; the first is the default.
        limits: see `Limits`.
    """

    def __init__(self, models: Sequence[str] = (), *, runtime: str | None = None, limits: Limits | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            models: names, folders or Hub addresses, as `keras_musictag.load` takes them; by default all of the zoo
                that have weights.
            runtime: as in `keras_musictag.load`.
            limits: the defaults of `Limits` unless told otherwise.
        """
        self.models = tuple(dict.fromkeys(models)) or offered()
        self.limits = limits or Limits()
        self._runtime = runtime
        self._taggers: dict[str, BaseTagger] = {}
        self._loading = threading.Lock()

    @functools.cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The data set whose tags models have -> those models; `"own tags"` last. Loads no model.

        Example:
            >>> TaggingService(["tiny", "vgg_mtt", "vgg_msd", "musicnn_mtt"]).groups["MagnaTagATune"]
            ('vgg_mtt', 'musicnn_mtt')
        """
        from ...loading import find_spec

        found: dict[str, list[str]] = {}
        for model in self.models:
            try:
                title = find_spec(model).vocabulary.title
            except MusicTagError:  # said when it is asked for
                title = OWN_TAGS
            found.setdefault(title, []).append(model)
        own = found.pop(OWN_TAGS, None)
        return {title: tuple(names) for title, names in found.items()} | ({OWN_TAGS: tuple(own)} if own else {})

    def tagger(self, model: str) -> BaseTagger:
        """The tagger of that name, loaded when it is first asked for.

        Raises:
            UnknownModelError: it is none of `models`.
            MusicTagError: it cannot be loaded; see `keras_musictag.load`.
        """
        if model not in self.models:
            raise UnknownModelError(f"This server has no model {model!r}. It has: {', '.join(self.models)}.")
        if model not in self._taggers:  # those that are there need not wait for one that is downloaded
            from ...loading import load

            with self._loading:
                if model not in self._taggers:
                    self._taggers[model] = load(model, runtime=self._runtime)
        return self._taggers[model]

    def warm_up(self) -> None:
        """Load the first model and tag the bundled clip, so that the first user need not wait for it.

        Raises:
            MusicTagError: the model cannot be loaded.
        """
        self.tagger(self.models[0]).tag(demo_clip())

    def answer(self, path: str | os.PathLike[str], models: Sequence[str]) -> dict[str, Any]:
        """What the models say of a file. What is wrong with the file or a model is said in the answer.

        Args:
            path: of the file; the answer has its name only.
            models: names, each once.

        Returns:
            Plain JSON: `file`, and either `error` or `seconds`, `note` (empty, or what was left out) and `results`. A
            result has `model`, and either `error` or `tags` (tag to probability, most probable first), `kinds` (tag to
            its kind; empty where kinds are not known), `notes` (what to know of the sound) and `taggram` (as
            `Taggram.to_dict`).
        """
        path = Path(path)
        answer: dict[str, Any] = {"file": path.name}
        try:
            if path.stat().st_size > self.limits.megabytes * 1e6:
                return {**answer, "error": f"{path.name} is larger than {self.limits.megabytes:g} MB. Cut it."}
            decoded: _Decoded = {}
            results = [self._result(path, model, decoded) for model in dict.fromkeys(models)]
        except FileNotFoundError:  # it was deleted, being old; AudioNotFoundError is one too
            return {**answer, "error": f"{path.name} is no longer here. Drop it again."}
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
        if key not in decoded:  # a second more than the limit tells whether there is more
            notes: list[str] = []
            y = audio.load(path, target_sr=settings.sr, resampler=settings.resampler, duration=limit + 1, notes=notes)
            decoded[key] = y, notes
        y, notes = decoded[key]
        y = y[: round(limit * settings.sr)]
        tags, words = tagger.tag(y, settings.sr), tagger.spec.vocabulary
        taggram = tagger.taggram(y, settings.sr, hop_seconds=max(1.0, len(y) / settings.sr / _MOST_WINDOWS))
        return {
            "model": model,
            "tags": {tag: round(probability, 6) for tag, probability in tags.items()},
            "kinds": dict(zip(words.names, words.kinds or (), strict=False)),
            "notes": notes,
            "taggram": taggram.to_dict(),
        }


def offered() -> tuple[str, ...]:
    """Models of the registry that have weights, the default one first, without the one for tests.

    Example:
        >>> offered()[0]
        'musicnet_crnn'
    """
    names = [name for name in list_models(pretrained=True) if name not in (DEFAULT_MODEL, _FOR_TESTS)]
    return (DEFAULT_MODEL, *names)
