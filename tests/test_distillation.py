"""A student hears the same seconds as its teacher, and comes to agree with it."""

import dataclasses

import keras
import numpy as np
import pytest
import soundfile

import keras_musictag as kmt
from keras_musictag.datasets import Manifest
from keras_musictag.datasets.batches import FeatureCache
from keras_musictag.loading import untrained
from keras_musictag.training.distillation import distil
from keras_musictag.training.loop import TrainingError, TrainingSpec
from keras_musictag.training.teacher_targets import EnsembleTargets, TeacherTargets, student_tags


@pytest.fixture
def tracks(tmp_path):
    """Twelve tracks of four seconds: tones or noise, or one after the other."""
    rng = np.random.default_rng(0)
    t = np.arange(32_000) / 16_000
    folder = tmp_path / "tracks"
    folder.mkdir()
    rows = ["file,tags"]
    for i in range(12):
        tone = 0.4 * np.sin(2 * np.pi * rng.uniform(200, 2000) * t)
        noise = 0.3 * rng.standard_normal(t.size)
        first, second = ((tone, tone), (noise, noise), (tone, noise))[i % 3]
        soundfile.write(folder / f"{i}.wav", np.concatenate([first, second]), 16_000)
        rows.append(f"{i}.wav,unlabelled")
    (folder / "tracks.csv").write_text("\n".join(rows) + "\n")
    return Manifest.from_csv(folder / "tracks.csv")


@pytest.fixture(scope="module")
def teacher():
    return kmt.load("tiny")


def test_targets_are_those_of_the_seconds_heard(tracks, teacher, tmp_path):
    frame = 256 / 16_000
    targets = TeacherTargets(teacher, tracks, tmp_path / "teacher", frame_seconds=frame, hop_seconds=0.5)
    assert targets.fill() == []
    column = teacher.tags.index("noise")
    changing = next(i for i, row in enumerate(tracks) if str(row.path).endswith("/2.wav"))
    early, late = targets(changing, 0, round(1.5 / frame)), targets(changing, round(2.5 / frame), round(1.5 / frame))
    assert early[column] < 0.3 and late[column] > 0.7
    inside = teacher.taggram(tracks[changing].path, hop_seconds=0.5)
    np.testing.assert_allclose(
        targets(changing, 0, round(1.6 / frame)), inside.probabilities[:2].mean(axis=0), atol=1e-6
    )
    whole = targets.row_targets()
    np.testing.assert_allclose(whole[changing], inside.probabilities.mean(axis=0), atol=1e-6)
    assert targets(changing, 10**6, 10).shape == (5,)  # beyond the end: the nearest window


def test_the_teacher_hears_a_file_once(tracks, teacher, tmp_path, monkeypatch):
    TeacherTargets(teacher, tracks, tmp_path / "teacher", frame_seconds=0.016).fill()
    again = TeacherTargets(teacher, tracks, tmp_path / "teacher", frame_seconds=0.016)
    monkeypatch.setattr(kmt.Tagger, "taggram", None)
    assert again.fill() == [] and again.row_targets().shape == (12, 5)


def test_an_export_is_a_teacher(tracks, teacher, tmp_path):
    pytest.importorskip("onnxruntime")
    teacher.export(tmp_path / "export", format="onnx")
    exported = kmt.load(tmp_path / "export")
    rows = []
    for number, tagger in enumerate((teacher, exported)):
        targets = TeacherTargets(tagger, tracks, tmp_path / f"teacher {number}", frame_seconds=0.016)
        assert targets.fill() == []
        rows.append(targets.row_targets())
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-4)
    tagger, state = distil(
        kmt.load("tiny", weights=None), exported, tracks[:9], tracks[9:], tmp_path / "run",
        cache=FeatureCache(tmp_path / "mels", teacher.spec),
        training=TrainingSpec(steps=2, validate_every=2, checkpoint_every=2), batch_size=4, progress=False,
    )  # fmt: skip
    assert state.step == 2 and tagger.spec.trained_on.startswith("Distilled from tiny on 9 tracks")


@pytest.fixture
def second_teacher(teacher, tmp_path):
    """One that mistakes: the tags' probabilities in reverse order."""
    other = kmt.load("tiny")
    head = other.core.get_layer("head")
    head.set_weights([weights[..., ::-1] for weights in head.get_weights()])
    return kmt.load(other.save(tmp_path / "second"))


def test_several_teachers_give_their_mean(tracks, teacher, second_teacher, tmp_path):
    options = {"frame_seconds": 0.016, "hop_seconds": 0.5}
    both = EnsembleTargets([teacher, second_teacher], tracks, tmp_path / "teacher", **options)
    one, two = (TeacherTargets(each, tracks, tmp_path / "teacher", **options) for each in (teacher, second_teacher))
    assert both.fill() == [] and both.key == f"{one.folder.name}+{two.folder.name}" and one.folder != two.folder
    expected = (one(2, 0, 100) + two(2, 0, 100)) / 2
    np.testing.assert_allclose(both(2, 0, 100), expected, rtol=1e-6)
    assert abs(expected - one(2, 0, 100)).max() > 0.1
    np.testing.assert_allclose(both.row_targets(), (one.row_targets() + two.row_targets()) / 2, rtol=1e-6)
    alone = EnsembleTargets([teacher], tracks, tmp_path / "teacher", **options)
    np.testing.assert_array_equal(alone.row_targets(), one.row_targets())


def test_a_teacher_with_long_windows_hears_each_second_twice(tracks, teacher, tmp_path):
    targets = EnsembleTargets([teacher], tracks, tmp_path / "teacher", frame_seconds=0.016, hop_seconds=0.01)
    assert teacher.spec.window_seconds == pytest.approx(1.008) and targets.members[0].hop_seconds == 0.5


def test_bad_files_are_reported_once(tracks, teacher, second_teacher, tmp_path):
    tracks[3].path.write_bytes(b"not sound" * 100)
    both = EnsembleTargets([teacher, second_teacher], tracks, tmp_path / "teacher", frame_seconds=0.016)
    ((path, error),) = both.fill()
    assert path.name == "3.wav" and "not a sound file" in str(error)


def test_a_student_of_two_teachers(tracks, teacher, second_teacher, tmp_path):
    student = kmt.load("tiny", weights=None)
    tagger, state = distil(
        student, [teacher, second_teacher], tracks[:9], tracks[9:], tmp_path / "run",
        cache=FeatureCache(tmp_path / "mels", student.spec),
        training=TrainingSpec(steps=4, validate_every=2, checkpoint_every=4), batch_size=4, progress=False,
    )  # fmt: skip
    assert state.step == 4 and tagger.spec.trained_on.startswith("Distilled from tiny and tiny on 9 tracks")


@pytest.fixture
def other_vocabulary(teacher, tmp_path):
    """A teacher with three tags of its own, one of them named as the other teacher's first."""
    spec = teacher.spec.retrained(name="other", tags=(teacher.tags[0], "hiss", "whistle"))
    other = kmt.Tagger(spec, pretrained=False)
    arrays = teacher.core.get_weights()
    other.core.set_weights([*arrays[:-2], arrays[-2][:, 1:4], arrays[-1][1:4]])
    return kmt.load(other.save(tmp_path / "other"))


def test_teachers_of_different_tags_are_concatenated(tracks, teacher, second_teacher, other_vocabulary, tmp_path):
    teachers = [teacher, other_vocabulary, second_teacher]
    assert student_tags([teacher, second_teacher]) == teacher.tags
    name = other_vocabulary.spec.name
    own = [f"tiny/{tag}" for tag in teacher.tags]
    assert student_tags(teachers) == (*own, f"{name}/{teacher.tags[0]}", f"{name}/hiss", f"{name}/whistle")
    targets = EnsembleTargets(teachers, tracks, tmp_path / "teacher", frame_seconds=0.016)
    assert targets.slices() == {"tiny": slice(0, 5), name: slice(5, 8)}
    both, third = (
        EnsembleTargets(each, tracks, tmp_path / "teacher", frame_seconds=0.016)
        for each in ([teacher, second_teacher], [other_vocabulary])
    )
    assert targets.fill() == []
    np.testing.assert_array_equal(targets(2, 0, 90), np.concatenate([both(2, 0, 90), third(2, 0, 90)]))
    assert targets.row_targets().shape == (12, 8)


def test_a_student_of_two_vocabularies(tracks, teacher, other_vocabulary, tmp_path):
    teachers = [teacher, other_vocabulary]
    student = untrained("tiny", student_tags(teachers))
    tagger, state = distil(
        student, teachers, tracks[:9], tracks[9:], tmp_path / "run",
        cache=FeatureCache(tmp_path / "mels", student.spec),
        training=TrainingSpec(steps=4, validate_every=2, checkpoint_every=4), batch_size=4, progress=False,
    )  # fmt: skip
    assert state.step == 4 and len(tagger.tags) == 8
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert "score_tiny" in header and f"score_{other_vocabulary.spec.name}" in header
    namesake = dataclasses.replace(other_vocabulary.spec, name="tiny")
    with pytest.raises(TrainingError, match="must have different names; got tiny, tiny"):
        student_tags([teacher, kmt.Tagger(namesake, core=other_vocabulary.core)])
    with pytest.raises(TrainingError, match="same tags in the same order; got 5 and 8"):
        distil(
            kmt.load("tiny", weights=None), teachers, tracks[:9], tracks[9:], tmp_path / "other run",
            cache=FeatureCache(tmp_path / "mels", student.spec), training=TrainingSpec(steps=4),
        )  # fmt: skip


def test_bad_files_are_reported(tracks, teacher, tmp_path):
    tracks[3].path.write_bytes(b"not sound" * 100)
    targets = TeacherTargets(teacher, tracks, tmp_path / "teacher", frame_seconds=0.016)
    ((path, error),) = targets.fill()
    assert path.name == "3.wav" and "not a sound file" in str(error)


@pytest.mark.contract
def test_a_student_comes_to_agree(tracks, teacher, tmp_path):
    keras.utils.set_random_seed(0)
    student = kmt.load("tiny", weights=None)
    settings = TrainingSpec(
        steps=120, validate_every=40, checkpoint_every=40, warmup_steps=5, learning_rate=1e-2, average=0.9
    )
    parts = {"train": tracks[:9], "validation": tracks[9:]}
    tagger, state = distil(
        student, teacher, *parts.values(), tmp_path / "run",
        cache=FeatureCache(tmp_path / "mels", student.spec), training=settings, batch_size=8, bn_momentum=0.8,
        progress=False,
    )  # fmt: skip
    # The correlation is a mean over five tags, of which three vary by little among these sounds.
    assert state.step == 120 and state.best > 0.5
    tone, noise = parts["validation"][0].path, parts["validation"][1].path
    assert tagger.tag(tone)["noise"] < 0.3 < 0.7 < tagger.tag(noise)["noise"]
    assert tagger.spec.trained_on.startswith("Distilled from tiny on 9 tracks")
    folder = tagger.save(tmp_path / "saved")
    assert kmt.load(folder).tag(noise) == pytest.approx(tagger.tag(noise), abs=1e-6)


def test_targets_stay_within_their_row(tracks, teacher, tmp_path):
    """A row that is a part of a file knows nothing of the rest: the student hears the part again and again."""
    changing = next(row for row in tracks if str(row.path).endswith("/2.wav"))  # a tone for 2 s, then noise
    part = Manifest((dataclasses.replace(changing, duration=2.0),), tracks.tags)
    targets = TeacherTargets(teacher, part, tmp_path / "teacher", frame_seconds=0.016, hop_seconds=0.5)
    noise = teacher.tags.index("noise")
    for start, frames in ((0, 62), (0, 250), (125, 62), (400, 62)):
        assert targets(0, start, frames)[noise] < 0.3, (start, frames)


def test_parts_that_overlap_are_refused(tracks, teacher, tmp_path):
    student = kmt.load("tiny", weights=None)
    options = {"cache": FeatureCache(tmp_path / "mels", student.spec), "training": TrainingSpec(steps=1)}
    with pytest.raises(TrainingError, match="train and validation share 3 files"):
        distil(student, teacher, tracks, tracks[:3], tmp_path / "run", **options)
    with pytest.raises(TrainingError, match="validation has 2 tracks; a correlation needs at least 3"):
        distil(student, teacher, tracks[:9], tracks[9:11], tmp_path / "run", **options)


def test_a_full_disk_is_no_fault_of_the_sound(tracks, teacher, tmp_path):
    (tmp_path / "teacher").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="teacher"):
        TeacherTargets(teacher, tracks, tmp_path / "teacher", frame_seconds=0.016).fill()


def test_other_tags_are_refused(tracks, teacher, tmp_path):
    student = kmt.load("musicnet_crnn", weights=None)
    with pytest.raises(TrainingError, match="must have the same tags in the same order; got 50 and 5"):
        distil(
            student, teacher, tracks, tracks, tmp_path / "run",
            cache=FeatureCache(tmp_path / "mels", student.spec), training=TrainingSpec(steps=1),
        )  # fmt: skip
    with pytest.raises(TrainingError, match="cannot be a teacher: its weights are not from a file"):
        TeacherTargets(student, tracks, tmp_path, frame_seconds=0.02)
