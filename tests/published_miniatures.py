"""Miniatures of published data sets, in their real formats; each returns the folder that a loader takes."""

import itertools

import numpy as np
import soundfile

RATE = 16_000
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
EMOTIONS = (
    "amazement", "solemnity", "tenderness", "nostalgia", "calmness", "power", "joyful_activation", "tension", "sadness"
)  # fmt: skip

_numbers = itertools.count()


def sound(path, artist=""):
    """Half a second of noise, no two alike; the format is that of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(next(_numbers)).uniform(-0.3, 0.3, RATE // 2)
    formats = {".au": "AU", ".wav": "WAV", ".mp3": "MP3"}
    with soundfile.SoundFile(path, "w", RATE, 1, format=formats[path.suffix]) as file:
        if artist:
            file.artist = artist
        file.write(noise)


# === MTG-Jamendo ===

JAMENDO = {
    "train": [("917538", 1, "genre---rock", "mood/theme---happy"), ("1310775", 1, "instrument---piano"),
              ("773", 2, "genre---electronic", "genre---techno"), ("774", 2, "genre---rock")],
    "validation": [("87483", 3, "genre---dance"), ("132431", 4, "genre---rock", "instrument---bass")],
    "test": [("394600", 5, "genre---electronic"), ("1312102", 6, "genre---indie", "instrument---violin")],
}  # fmt: skip
JAMENDO_SIZES = {"train": 4, "valid": 2, "test": 2}


def jamendo_folder(root, splits=(0,), suffix=".mp3", below="audio"):
    """The clone of the repository, with sounds of the eight tracks of JAMENDO."""
    for split, (part, tracks) in itertools.product(splits, JAMENDO.items()):
        table = root / f"data/splits/split-{split}/autotagging_top50tags-{part}.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        lines = ["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"]
        for track, artist, *tags in tracks:
            path = f"{track[-2:]}/{track}.mp3"
            ids = f"track_{int(track):07}", f"artist_{artist:06}", f"album_{artist:06}"
            lines.append("\t".join((*ids, path, "126.5", *tags)))
        table.write_bytes(("\n".join(lines) + "\n").encode())
    for tracks in JAMENDO.values():
        for track, *_ in tracks:
            written = root / below / track[-2:] / f"{track}.mp3"
            sound(written)
            written.rename(written.with_suffix(suffix))
    return root


# === GTZAN ===


def gtzan_folder(root, split, suffix=".wav", below="genres"):
    """The excerpts that a split names, and one of each genre that it does not."""
    for name in [*split, *(f"{genre}/{genre}.00999" for genre in GENRES)]:
        sound(root / below / f"{name}{suffix}")
    return root


# === Emotify ===


def emotify_folder(root, per_genre=5, artists=True, seed=0):
    """Votes of three to five listeners and a sound for each excerpt; two excerpts in a row are of one artist."""
    rng = np.random.default_rng(seed)
    facts = ["mood", "liked", "disliked", "age", "gender", "mother tongue"]
    lines = [",".join(["track id", *(f" {name}" for name in ["genre", *EMOTIONS, *facts])])]
    for number, genre in enumerate(np.repeat(["classical", "electronic", "pop", "rock"], per_genre), 1):
        within = (number - 1) % per_genre + 1
        sound(root / "emotifymusic" / genre / f"{within}.mp3", f"Artist {(number - 1) // 2}" if artists else "")
        for _ in range(rng.integers(3, 6)):
            felt = rng.permutation([1, 1, 1, 0, 0, 0, 0, 0, 0])
            lines.append(",".join(map(str, [number, genre, *felt, 3, 1, 0, 25, 1, "English"])))
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return root
