"""Getting weight files without the network: from a mirror (also by address) and from beside the spec."""

import dataclasses

import pytest
from hub_server import Fault
from weight_files import CONTENT, NAME, OTHER, URL, files_in, rot, spec_of

import keras_musictag as kmt
from keras_musictag.errors import CorruptWeightsError, OfflineError, SpecError, WeightsError, WeightsUnavailableError
from keras_musictag.models import fetching as download

# === Mirror ===


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(folder))
    return folder


def test_a_folder_is_searched_by_name_and_sha256(https, mirror, cache):
    (mirror / NAME).write_bytes(OTHER)
    (mirror / "deep" / "other.h5").write_bytes(CONTENT)
    wanted = mirror / "deep" / "down" / NAME
    wanted.write_bytes(CONTENT)
    assert download.fetch_weights(spec_of()) == wanted
    assert https.requests == []
    assert not cache.exists()


def test_other_bytes_of_the_same_name_are_not_used(https, mirror, caplog):
    (mirror / NAME).write_bytes(OTHER)
    path = download.fetch_weights(spec_of())
    assert path.read_bytes() == CONTENT
    assert mirror not in path.parents
    assert "in the mirror does not have the sha256 that the spec pins; it is not used" in caplog.text


def test_a_folder_serves_offline(server, mirror, monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    (mirror / NAME).write_bytes(CONTENT)
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT


def test_links_in_a_mirror_are_followed_to_files_but_not_in_circles(https, mirror):
    (mirror / "deep" / "again").symlink_to(mirror, target_is_directory=True)
    (mirror / "deep" / "dangling").mkdir()
    (mirror / "deep" / "dangling" / NAME).symlink_to(mirror / "nowhere")
    (mirror / "blob").write_bytes(CONTENT)
    (mirror / NAME).symlink_to(mirror / "blob")
    assert download.fetch_weights(spec_of()) == mirror / NAME


def test_a_cache_is_a_mirror(https, cache, monkeypatch, tmp_path):
    download.fetch_weights(spec_of())
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", str(cache))
    monkeypatch.setenv("KERAS_MUSICTAG_CACHE", str(tmp_path / "another"))
    assert cache in download.fetch_weights(spec_of()).parents
    assert len(https.requests) == 1


def test_a_mirror_that_is_nothing(monkeypatch):
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", "/no/such/folder")
    with pytest.raises(
        WeightsError, match=r"must be an existing folder or an http.* got '/no/such/folder'.*Correct or unset it"
    ):
        download.fetch_weights(spec_of())


def test_a_mirror_by_address(server, monkeypatch, cache):
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{server.url}/files/")
    path = download.fetch_weights(spec_of("https://127.0.0.1:1/elsewhere/model.h5"))
    assert path.read_bytes() == CONTENT
    assert cache in path.parents
    assert download.fetch_weights(spec_of("https://127.0.0.1:1/elsewhere/model.h5")) == path
    assert server.requests == [f"GET /files/{NAME}"]


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(body=OTHER), Fault(cut=1000)], ids=["404", "other", "cut"])
def test_where_a_mirror_fails_the_original_address_is_asked(https, monkeypatch, caplog, cache, fault):
    https.files[f"mirror/{NAME}"] = CONTENT
    https.faults["/mirror/"] = fault
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{https.url}/files/mirror")
    assert download.fetch_weights(spec_of()).read_bytes() == CONTENT
    assert f"{NAME} could not be fetched from the mirror; trying {URL}" in caplog.text
    attempts = 3 if fault.cut else 1  # a connection that drops is taken up again
    assert https.requests == [*[f"GET /files/mirror/{NAME}"] * attempts, f"GET /files/{NAME}"]
    assert len(files_in(cache)) == 1


def test_offline_a_mirror_by_address_is_not_asked_either(server, monkeypatch, caplog):
    monkeypatch.setenv("KERAS_MUSICTAG_MIRROR", f"{server.url}/files")
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    with pytest.raises(OfflineError):
        download.fetch_weights(spec_of())
    assert server.requests == []
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["musicnn_mtt", "musicnn_msd", "vgg_mtt", "vgg_msd"])
def test_the_published_models_load_from_a_mirror(published_weights, monkeypatch, cache, name):
    monkeypatch.setenv("KERAS_MUSICTAG_OFFLINE", "1")
    assert "pretrained" in repr(kmt.load(name))
    (converted,) = files_in(cache)  # the published file stays in the mirror
    assert converted.startswith("converted/")


# === Beside the spec ===


def test_a_file_beside_the_spec(tmp_path):
    spec = dataclasses.replace(spec_of("weights.safetensors"), root=tmp_path)
    with pytest.raises(WeightsError, match=r"weights\.safetensors is missing\. Restore"):
        download.fetch_weights(spec)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(CONTENT)
    assert download.fetch_weights(spec) == path
    rot(path)
    with pytest.raises(CorruptWeightsError, match=r"is not the file the spec pins: its sha256 is .*Restore the file"):
        download.fetch_weights(spec)
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsError, match="is missing"):
        download.fetch_weights(spec)


def test_an_absolute_path_is_for_specs_made_in_code(tmp_path):
    path = tmp_path / "anywhere.safetensors"
    path.write_bytes(CONTENT)
    spec = spec_of(str(path))
    assert download.fetch_weights(spec) == path
    (tmp_path / "spec.json").write_text(spec.to_json())
    with pytest.raises(SpecError, match="must be a file name beside it, not a path"):
        kmt.load(tmp_path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("../weights.safetensors", "plain file name"),
        ("folder/weights.safetensors", "plain file name"),
        ("..", "plain file name"),
        (".", "plain file name"),
        ("file:///etc/passwd", "plain file name"),
        ("http://weights.example/files/model.h5", "must use https"),
        ("hf://org/repo", "not pinned"),
        ("hf://org", "must be hf://org/repo"),
        ("hf://../..@main", "must be hf://org/repo"),
        ("hf://org/repo@../../../etc", "must be hf://org/repo"),
        ("hf://org/repo@/etc", "must be hf://org/repo"),
        ("", "non-empty"),
    ],
)
def test_a_hostile_spec_is_refused(tmp_path, uri, message):
    text = spec_of("WEIGHTS").to_json().replace("WEIGHTS", uri)
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(SpecError, match=message):
        download.fetch_weights(kmt.ModelSpec.from_folder(tmp_path))


def test_a_link_out_of_the_folder_gives_nothing_away(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password")
    folder = tmp_path / "tagger"
    folder.mkdir()
    (folder / "weights.safetensors").symlink_to(secret)
    (folder / "spec.json").write_text(spec_of("weights.safetensors").to_json())
    with pytest.raises(CorruptWeightsError, match="not the file the spec pins") as caught:
        kmt.load(folder)
    assert "password" not in str(caught.value)


def test_a_model_without_weights():
    spec = dataclasses.replace(kmt.model_info("tiny"), weights=None, weights_help="Knit them.")
    with pytest.raises(WeightsUnavailableError, match=r"no weights for 'tiny' yet\. Knit them\."):
        download.fetch_weights(spec)
