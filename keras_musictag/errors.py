"""Every exception this package raises on purpose.

All derive from `MusicTagError`; each also derives from the built-in a caller would naturally catch
(`ValueError`, `OSError`, `LookupError`, `ImportError`). Messages say what was wrong, what was received
and what to do about it.
"""


class MusicTagError(Exception):
    """Base of everything below."""


# === Audio ===


class AudioError(MusicTagError, ValueError):
    """A sound that cannot be tagged: the reason is in the subclass and the message."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """There is no regular file at the path (nothing, a folder, a pipe, ...)."""


class UnsupportedAudioError(AudioError):
    """No installed decoder recognises the file."""


class TruncatedAudioError(AudioError):
    """The file ends before the length its header declares, or breaks off in the middle."""


class AudioTooShortError(AudioError):
    """No samples, or fewer than one analysis frame."""


class SilentAudioError(AudioError):
    """No sample reaches one 16-bit step: there is nothing to tag."""


class InvalidSamplesError(AudioError):
    """NaN, infinity, an impossible sample rate, or an array of the wrong shape or type."""


# === Specs and names ===


class SpecError(MusicTagError, ValueError):
    """A `spec.json` or a spec object that contradicts itself or misses something."""


class UnknownModelError(MusicTagError, LookupError):
    """No model of that name is registered."""


class UnknownTagError(MusicTagError, LookupError):
    """The tagger has no such tag."""


# === Weights ===


class WeightsError(MusicTagError):
    """Weights that could not be had or do not belong to the model."""


class WeightsUnavailableError(WeightsError, LookupError):
    """Nobody has published weights for this model yet."""


class WeightsMismatchError(WeightsError, ValueError):
    """Variables in the file differ from the model's in name, shape or type."""


class CorruptWeightsError(WeightsError, ValueError):
    """The bytes are not the ones the spec pins by sha256, or are no weight file at all."""


class DownloadError(WeightsError, OSError):
    """The server refused, broke off or could not be reached."""


class OfflineError(DownloadError):
    """A download is needed but offline mode is on."""


class CacheError(WeightsError, OSError):
    """The cache folder cannot be written (read-only, disk full, ...)."""


# === Processes ===


class ForkedProcessError(MusicTagError, RuntimeError):
    """Keras, started in one process, was used in a forked copy of it, where it would hang."""


# === Installation ===


class MissingExtraError(MusicTagError, ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Say which `package` is missing for `purpose` and which `extra` installs it."""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'keras_musictag[{extra}]'"
        )
