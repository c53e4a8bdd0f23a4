"""Exceptions of the package.

All derive from `MusicTagError`, and each also from the matching built-in (`ValueError`, `OSError`, `LookupError`,
`ImportError`). Messages say what was wrong, what was received and what to do.
"""


class MusicTagError(Exception):
    """Base class of the package's exceptions."""


# === Audio ===


class AudioError(MusicTagError, ValueError):
    """The audio cannot be tagged."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """The path is not a regular file: it does not exist, or is a folder, a pipe, ..."""


class UnsupportedAudioError(AudioError):
    """No installed decoder can read the file."""


class TruncatedAudioError(AudioError):
    """The file ends before the length that its header declares, or cannot be decoded to its end."""


class AudioTooShortError(AudioError):
    """The audio is empty or shorter than one STFT frame."""


class SilentAudioError(AudioError):
    """The audio is silent: no sample reaches one 16-bit quantisation step."""


class InvalidSamplesError(AudioError):
    """The samples hold NaN or infinity, or their shape, type or sample rate is invalid."""


# === Specs and names ===


class SpecError(MusicTagError, ValueError):
    """A `spec.json` or spec object is incomplete or inconsistent."""


class UnknownModelError(MusicTagError, LookupError):
    """No model with this name is registered."""


class UnknownTagError(MusicTagError, LookupError):
    """The tagger does not have this tag."""


# === Weights ===


class NoThresholdsError(MusicTagError, ValueError):
    """The model has no thresholds for `threshold="auto"`."""


class WeightsError(MusicTagError):
    """The weights cannot be obtained or do not fit the model."""


class WeightsUnavailableError(WeightsError, LookupError):
    """No weights have been published for this model yet."""


class WeightsMismatchError(WeightsError, ValueError):
    """The variables in the file differ from the model's in name, shape or type."""


class CorruptWeightsError(WeightsError, ValueError):
    """The file does not have the sha256 that the spec pins, cannot be read, or holds NaN or infinity."""


class DownloadError(WeightsError, OSError):
    """The server refused the request, broke the connection or could not be reached."""


class OfflineError(DownloadError):
    """A download is needed, but offline mode is on."""


class CacheError(WeightsError, OSError):
    """The cache folder cannot be written (read-only, disk full, ...)."""


# === Processes ===


class ForkedProcessError(MusicTagError, RuntimeError):
    """Keras was started before the process was forked and used in the child, where it would hang."""


# === Installation ===


class MissingExtraError(MusicTagError, ImportError):
    """An optional dependency is missing; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Create an error saying that `purpose` needs `package`, which `extra` installs."""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'keras_musictag[{extra}]'"
        )
