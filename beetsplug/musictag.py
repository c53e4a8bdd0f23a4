"""A beets plugin: `beet musictag` stores tags of music in flexible attributes.

Each kind of tag has its attribute (`musictag_genre`, `musictag_mood`, `musictag_instrument`, ...), a list like beets'
own `genres`. `musictag_model` names the model; an item that has it counts as tagged. Probabilities, on request, are in
attributes `musictag_p_TAG`, numbers from 0 to 1. Audio files are not changed.

This folder has no `__init__.py`: `beetsplug` is a namespace package that beets and its plugins share.
"""

from __future__ import annotations

import functools
import optparse
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import confuse
from beets.dbcore import types
from beets.exceptions import UserError
from beets.plugins import BeetsPlugin
from beets.ui import Subcommand

from keras_musictag.apps.library.tag_plans import MIN_PROB, MOST, WriteOptions, by_kind
from keras_musictag.errors import MusicTagError
from keras_musictag.loading import find_spec, load
from keras_musictag.models.registry import DEFAULT_MODEL
from keras_musictag.models.thresholds import auto_thresholds
from keras_musictag.models.vocabulary import KINDS

if TYPE_CHECKING:
    from beets.importer import ImportSession, ImportTask
    from beets.library import Item, Library

    from keras_musictag.tagging.base_tagger import BaseTagger
    from keras_musictag.tagging.tag_result import TagResult

_KIND_PREFIX, _MODEL, _PROBABILITY_PREFIX = "musictag_", "musictag_model", "musictag_p_"  # attributes
_DEFAULTS = {
    "auto": False,
    "model": DEFAULT_MODEL,
    "runtime": None,  # default of `load`: Keras, or for an export the fastest
    "kinds": [],  # all
    "most": MOST,
    "min_prob": MIN_PROB,
    "probabilities": False,
    "force": False,
}


class MusicTagPlugin(BeetsPlugin):
    """Tag items with a model of keras_musictag, by command or, with `auto: yes`, on import."""

    def __init__(self) -> None:
        super().__init__()
        self.config.add(_DEFAULTS)
        if self.config["auto"].get(bool):
            # An invalid setting or missing weights end an import before the first file is moved.
            self.register_listener("import_begin", self.check)
            self.import_stages = [self.imported]

    @functools.cached_property
    def item_types(self) -> dict[str, types.Type[Any, Any]]:
        """Attribute -> type, which queries and output use.

        Probabilities are those of the configured model. If its spec cannot be read, they have no type, and queries
        treat them as text.
        """
        names: Sequence[str] = ()
        model = self.config["model"].as_str()
        if not model.startswith("hf://"):  # `beet ls` must not wait for a download
            try:
                names = find_spec(model).vocabulary.names
            except MusicTagError as error:
                self._log.debug("probabilities have no type: {}", error)
        lists = {_KIND_PREFIX + kind: types.MULTI_VALUE_DSV for kind in KINDS}
        return lists | {_MODEL: types.STRING} | dict.fromkeys(probability_attributes(names), types.NullFloat(3))

    def commands(self) -> list[Subcommand]:
        """Return the command `beet musictag`."""
        command = Subcommand("musictag", help="tag music by its audio content")
        add = command.parser.add_option
        add("-f", "--force", action="store_true", default=None, help="also tag items that are tagged")
        add("-p", "--probabilities", action="store_true", default=None, help="also store the probability of every tag")
        add("-m", "--model", help="model name, saved folder, or hf://org/repo@revision")
        command.func = self.command
        return [command]

    def command(self, lib: Library, opts: optparse.Values, args: list[str]) -> None:
        """Run `beet musictag [QUERY]`."""
        self.config.set_args(opts)
        self.tag_items(lib.items(args))

    def check(self, session: ImportSession) -> None:
        """Raise `UserError` if a setting is invalid, or the model cannot be loaded."""
        _ = self._chooser

    def imported(self, session: ImportSession, task: ImportTask) -> None:
        """Tag imported items."""
        self.tag_items(task.imported_items())

    def tag_items(self, items: Iterable[Item]) -> None:
        """Tag items, and store each as soon as it is tagged, so that an interrupted run keeps its results.

        An item that cannot be tagged is logged as an error and not changed; the next run tries it again.

        Raises:
            UserError: a setting is invalid, or the model cannot be loaded.
        """
        force = self.config["force"].get(bool)
        every = list(items)
        untagged = [item for item in every if force or not item.get(_MODEL, with_album=False)]
        tagged = 0
        for item, result in zip(untagged, self._results(untagged), strict=True):
            if result.tags is None:
                self._log.error("{}", result.error)
                continue
            for note in result.notes:
                self._log.info("{}: {}", item.filepath, note)
            self._store(item, result.tags)
            tagged += 1
        counts = {"tagged": tagged, "tagged before": len(every) - len(untagged), "failed": len(untagged) - tagged}
        self._log.info("{}", ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "no items")

    def _results(self, items: Sequence[Item]) -> Iterator[TagResult]:
        if not items:  # loading a model takes seconds
            return iter(())
        return self._chooser.tagger.tag_many([item.filepath for item in items])

    def _store(self, item: Item, probabilities: Mapping[str, float]) -> None:
        """Replace the attributes of an item.

        If Ctrl-C ends a `store`, beets commits the attributes written so far, in any order. So the model is removed
        before all others and written after them: an item with a model has all attributes.
        """
        if item.get(_MODEL, with_album=False):
            del item[_MODEL]
            item.store()
        for key in list(item.keys(with_album=False)):
            if key.startswith(_PROBABILITY_PREFIX) or key.removeprefix(_KIND_PREFIX) in KINDS:
                del item[key]
        chosen = self._chooser.choose(probabilities)
        for kind, tags in chosen.items():
            item[_KIND_PREFIX + kind] = tags
        if self.config["probabilities"].get(bool):
            names = self._chooser.tagger.names
            for name, attribute in zip(names, probability_attributes(names), strict=True):
                item[attribute] = round(probabilities[name], 6)
        item.store()
        item[_MODEL] = self._chooser.tagger.spec.name
        item.store()
        shown = "; ".join(f"{kind}: {', '.join(tags)}" for kind, tags in chosen.items())
        self._log.info("{}: {}", item.filepath, shown or "no tag is probable enough")

    @functools.cached_property
    def _chooser(self) -> _TagChooser:
        """Model and options, loaded at first use."""
        settings = self.config
        min_prob: Any = settings["min_prob"].get(confuse.OneOf([float, confuse.Choice(["auto"])]))
        try:
            options = WriteOptions(
                most=settings["most"].get(int),
                min_prob=0.0 if min_prob == "auto" else min_prob,
                kinds=settings["kinds"].as_str_seq() or None,
            )
            tagger = load(settings["model"].as_str(), runtime=settings["runtime"].get(confuse.Optional(str)))
            tagger.spec.vocabulary.columns(kinds=options.kinds)
            return _TagChooser(tagger, options, auto_thresholds(tagger.spec) if min_prob == "auto" else None)
        except (MusicTagError, ValueError) as error:
            raise UserError(f"musictag: {error}") from error


class _TagChooser:
    """A tagger, and the options for choosing an item's tags."""

    def __init__(self, tagger: BaseTagger, options: WriteOptions, thresholds: Iterable[float] | None) -> None:
        self.tagger, self._options = tagger, options
        self._thresholds = dict(zip(tagger.names, thresholds, strict=True)) if thresholds is not None else {}

    def choose(self, probabilities: Mapping[str, float]) -> dict[str, list[str]]:
        """Return kind -> tags, the most probable first; kinds without tags are left out."""
        reached = {tag: p for tag, p in probabilities.items() if p >= self._thresholds.get(tag, 0.0)}
        return by_kind(reached, self.tagger.spec.vocabulary, self._options)


def probability_attributes(names: Sequence[str]) -> list[str]:
    """Return the attribute of each tag; an attribute must be a single word, for queries.

    Example:
        >>> probability_attributes(["Hip-Hop", "hip hop", "♥"])
        ['musictag_p_hip_hop', 'musictag_p_hip_hop_2', 'musictag_p_3']
    """
    attributes: list[str] = []
    for number, name in enumerate(names, 1):
        attribute = _PROBABILITY_PREFIX + (re.sub(r"\W+", "_", name.lower()).strip("_") or str(number))
        attributes.append(f"{attribute}_{number}" if attribute in attributes else attribute)
    return attributes
