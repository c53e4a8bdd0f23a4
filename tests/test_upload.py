"""Taggers onto the Hub: the real client against a loopback server that takes commits as the Hub does."""

import huggingface_hub
import numpy as np
import pytest
from hub_server import Fault, Repo
from hub_upload_server import hub_for_the_client

import keras_musictag as kmt
from keras_musictag.errors import CacheError, MusicTagError, SpecError
from keras_musictag.models import hub as upload
from keras_musictag.models.hub import UploadError

# The Hub's client passes files to its HTTP library in a way that this calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "ann/my-tagger"
FILES = ["README.md", "spec.json", "weights.safetensors"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    yield from hub_for_the_client(tmp_path, monkeypatch)


def other_tags(seed=0):
    """`tiny` for other tags, as fine-tuning makes it."""
    spec = kmt.model_info("tiny").retrained(
        name="my-tagger",
        tags=("dub", "garage", "grime"),
        trained_on="three records",
        license="CC0-1.0",
        metrics=({"dataset": "My records", "split": "valid", "n": 12, "roc_auc": 0.75, "source": "a test"},),
    )
    core = kmt.build_model("tiny", num_tags=3, input_shape=spec.input_shape, **spec.config)
    rng = np.random.default_rng(seed)
    core.set_weights([rng.uniform(0.1, 0.3, weight.shape) for weight in core.get_weights()])
    return kmt.Tagger(spec, core=core)


@pytest.fixture(scope="module")
def tagger():
    return other_tags()


def pushed(hub, repo=REPO, branch="main"):
    """Files of a branch."""
    known = hub.repos[repo]
    return known.commits[known.refs[branch]]


# === What arrives ===


def test_what_is_pushed_is_loaded_again(hub, tagger, sine):
    address = tagger.push_to_hub(REPO)
    commit = hub.repos[REPO].refs["main"]
    assert address == f"hf://{REPO}@{commit}"
    loaded = kmt.load(address)
    assert loaded.tags == ("dub", "garage", "grime")
    assert loaded.tag(sine, sr=16_000) == tagger.tag(sine, sr=16_000)
    assert loaded.spec.trained_on == "three records" and loaded.spec.metrics == tagger.spec.metrics
    assert sorted(pushed(hub)) == [".gitattributes", *FILES]
    assert len(hub.repos[REPO].commits) == 2, "the Hub's own, and one of ours"
    assert hub.messages == ["my-tagger, uploaded by keras_musictag"]
    assert not hub.repos[REPO].token


def test_the_card_says_how_to_load_it_from_there(hub, tagger, tmp_path):
    tagger.push_to_hub(REPO)
    (tmp_path / "card.md").write_bytes(pushed(hub)["README.md"])
    front_matter = huggingface_hub.ModelCardData(**huggingface_hub.metadata_load(tmp_path / "card.md"))
    assert front_matter.license == "cc0-1.0" and front_matter.library_name == "keras_musictag"
    assert f'keras_musictag.load("hf://{REPO}")' in pushed(hub)["README.md"].decode()


def test_pushing_again_commits_what_has_changed(hub, tagger):
    first = tagger.push_to_hub(REPO)
    assert tagger.push_to_hub(REPO) == first, "nothing has changed"
    assert sum("PUT /cdn/store/" in request for request in hub.requests) == 1
    second = other_tags(seed=1).push_to_hub(REPO, commit_message="Trained for longer")
    assert second != first and hub.messages[1:] == ["Trained for longer"]
    assert kmt.load(first).weights_sha256 != kmt.load(second).weights_sha256


def test_a_branch_is_made_and_main_stays(hub, tagger):
    main = tagger.push_to_hub(REPO)
    address = other_tags(seed=1).push_to_hub(REPO, branch="louder/v2")
    assert address == f"hf://{REPO}@{hub.repos[REPO].refs['louder/v2']}" != main
    assert hub.repos[REPO].refs["main"] == main.split("@")[1]
    assert other_tags(seed=2).push_to_hub(REPO, branch="louder/v2") != address, "the branch is there by now"


def test_private(hub, tagger, monkeypatch):
    hub.writers["reads too"] = {"ann"}
    address = tagger.push_to_hub(REPO, private=True)
    assert hub.repos[REPO].token == "writes"
    kmt.load(address)
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(MusicTagError, match="does not exist or is private"):
        kmt.load(f"hf://{REPO}")


def test_a_token_of_ones_own(hub, tagger, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    hub.writers["mine"] = {"band"}
    tagger.push_to_hub("band/tagger", token="mine")
    assert sorted(pushed(hub, "band/tagger"))[1:] == FILES


# === What is refused before anything is sent ===


@pytest.mark.parametrize(
    ("repo", "branch", "message"),
    [
        ("my-tagger", None, r"repo_id must be org/repo, e\.g\. 'ann/my-tagger', .* got 'my-tagger' and None"),
        ("hf://ann/tagger", None, r"repo_id must be org/repo.* got 'hf://ann/tagger'"),
        ("ann/tagger@v1", None, r"repo_id must be org/repo.* got 'ann/tagger@v1'"),
        ("a/b/c", None, r"repo_id must be org/repo.* got 'a/b/c'"),
        (REPO, "../x", r"branch a name, e.g. 'v2'; got 'ann/my-tagger' and '\.\./x'"),
        ("ann/my--tagger", None, r"hf://ann/my--tagger is not a valid name of a repository on the Hub .*-- or"),
        ("ann/tagger.git", None, r"hf://ann/tagger.git is not a valid name of a repository on the Hub .*\.git"),
    ],
)
def test_a_name_that_cannot_be(hub, tagger, repo, branch, message):
    with pytest.raises(SpecError, match=message):
        tagger.push_to_hub(repo, branch=branch)
    assert hub.requests == []


@pytest.mark.parametrize("variable", ["KERAS_MUSICTAG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(hub, tagger, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UploadError, match=r"hf://ann/my-tagger cannot be uploaded: offline mode is on\. Unset HF_HUB"):
        tagger.push_to_hub(REPO)
    assert hub.requests == []


def test_no_token(hub, tagger, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UploadError, match=r"no token was found\. Run `hf auth login`, set HF_TOKEN or pass token="):
        tagger.push_to_hub(REPO)
    assert hub.requests == []


def test_a_tagger_that_cannot_be_saved(hub, tagger, tmp_path, monkeypatch):
    (tmp_path / "full").touch()
    monkeypatch.setattr(upload.tempfile, "tempdir", str(tmp_path))

    def fail(*args, **kwargs):
        raise CacheError("the disk is full")

    monkeypatch.setattr("keras_musictag.models.tagger_folder.save", fail)
    with pytest.raises(CacheError, match="the disk is full"):
        tagger.push_to_hub(REPO)
    assert hub.requests == [] and [path.name for path in tmp_path.iterdir() if "musictag" in path.name] == []


# === What the Hub refuses ===


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        (REPO, "expired", r"the Hub refused the token \(.*Invalid username.*\)\. Run `hf auth login`"),
        (
            "bob/tagger",
            "writes",
            r"the token has no write access to the repository \(.*namespace 'bob'.*role 'write'; `hf auth whoami`",
        ),
        (
            "ann/songs",
            "writes",
            r"no model repository with this name .*if a data set or a Space has it, choose another",
        ),
    ],
)
def test_the_hub_refuses(hub, tagger, monkeypatch, repo, token, message):
    hub.taken.add("ann/songs")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UploadError, match=message):
        tagger.push_to_hub(repo)
    assert hub.repos == {} and hub.store == {}


def test_somebody_elses_public_repository(hub, tagger):
    """The client takes it that a repository which can be seen is enough, and is refused later."""
    hub.repos["bob/tagger"] = Repo()
    before = hub.repos["bob/tagger"].commit({"spec.json": b"{}"})
    with pytest.raises(UploadError, match="the token has no write access to the repository"):
        tagger.push_to_hub("bob/tagger")
    assert hub.repos["bob/tagger"].refs == {"main": before} and hub.store == {}


def test_a_repository_that_must_be_new(hub, tagger):
    tagger.push_to_hub(REPO, exist_ok=False)
    with pytest.raises(UploadError, match=r"already exists \(.*already created.*\)\. Pass exist_ok=True, or choose"):
        tagger.push_to_hub(REPO, exist_ok=False)


def test_a_repository_of_something_else_is_left_alone(hub, tagger):
    hub.repos[REPO] = Repo()
    names = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
    before = hub.repos[REPO].commit(dict.fromkeys(names, b"x"))
    with pytest.raises(UploadError, match=r"than a tagger \(config.json, model.safetensors, tokenizer.json.*\)"):
        tagger.push_to_hub(REPO)
    assert hub.repos[REPO].refs == {"main": before}
    hub.repos[REPO].commit({"README.md": b"# To come", "LICENSE": b"x"})
    tagger.push_to_hub(REPO)


def test_what_is_private_does_not_become_public(hub, tagger):
    tagger.push_to_hub(REPO)
    with pytest.raises(UploadError, match=r"the repository exists and is public\. Make it private in its settings"):
        other_tags(seed=1).push_to_hub(REPO, private=True)
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize("path", ["/preupload/", "/objects/batch", "/cdn/store/", "/objects/verify", "/commit/"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(status=500),
            r"the Hub failed \(.*Internal Server Error\)\. Try again: all files are uploaded together",
        ),
        (
            Fault(cut=0),
            r"could not be reached or broke the connection \(.*disconnected.*Try again: all files",
        ),
        (Fault(status=401), r"the Hub refused the token"),
        (Fault(status=429), r"the Hub refused the upload \(.*Too Many Requests.*\)\. Nothing was committed"),
    ],
    ids=["500", "broken off", "401", "429"],
)
def test_a_failure_in_the_middle_commits_nothing(hub, tagger, path, fault, message):
    before = tagger.push_to_hub(REPO)
    new = other_tags(seed=1)
    hub.faults[path] = fault
    with pytest.raises(UploadError, match=f"hf://{REPO} was not uploaded: .*{message}"):
        new.push_to_hub(REPO)
    assert hub.repos[REPO].refs["main"] == before.split("@")[1] and len(hub.repos[REPO].commits) == 2
    hub.faults.clear()
    assert new.push_to_hub(REPO) != before


def test_nobody_listens(hub, tagger):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UploadError, match=r"could not be reached or broke the connection \(.*refused\)\. Try again"):
        tagger.push_to_hub(REPO)


def test_a_hub_that_has_no_xet_storage(hub, tagger, monkeypatch):
    """The message is that of hf_xet 1.8, which the client uses for large files unless told otherwise."""

    def fail(*args, **kwargs):
        raise ConnectionError("Network error: HTTP status client error (404 Not Found), domain: x/xet-write-token/main")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", fail)
    with pytest.raises(UploadError, match=r"xet-write-token/main\).*For a Hub without Xet .*set HF_HUB_DISABLE_XET=1"):
        tagger.push_to_hub(REPO)


def test_a_card_that_the_hub_does_not_take(hub, tagger, monkeypatch):
    monkeypatch.setattr(upload.cards, "model_card", lambda spec, name: "---\nlicense: my own\n---\n")
    with pytest.raises(UploadError, match=r"refused the upload \(.*got 'my own'\)\. Nothing was committed"):
        tagger.push_to_hub(REPO)
    assert list(pushed(hub)) == [".gitattributes"]
