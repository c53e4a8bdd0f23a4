"""Every architecture and every zoo entry, on whichever backend runs the tests."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import keras_musictag as kmt
from keras_musictag.errors import SpecError

pytestmark = pytest.mark.contract

ARCHITECTURES = (
    "baseline_cnn", "choi_crnn", "large_cnn", "mobilenet_v3", "musicnet_crnn", "musicnet_crnn_fast", "musicnn", "tiny",
    "vgg", "won_crnn", "won_fcn", "won_musicnn",
)  # fmt: skip
# (all, trainable) at the default number of tags; from the papers' layouts, worked out by hand in docs/architecture.md.
PARAMETERS = {
    "baseline_cnn": (864_690, 863_218),
    "large_cnn": (1_201_922, 1_200_178),
    "musicnet_crnn": (398_530, 397_818),
    "musicnet_crnn_fast": (180_498, 179_986),
    "musicnn": (792_079, 787_159),
    # Published counts: of what is trained.
    "choi_crnn": (400_562, 396_786),
    "mobilenet_v3": (993_439, 983_599),
    "won_crnn": (394_998, 394_100),
    "won_fcn": (448_758, 447_732),
    "won_musicnn": (786_208, 784_300),
    "vgg": (607_030, 605_748),
}
ZOO = [
    "baseline_cnn", "choi_crnn_msd", "large_cnn", "mn04_audioset", "musicnet_crnn", "musicnet_crnn_fast",
    "musicnet_crnn_jamendo", "musicnet_crnn_msd", "musicnn_msd", "musicnn_mtt", "tiny", "vgg_msd", "vgg_mtt",
    "won_crnn_jamendo", "won_crnn_msd", "won_crnn_mtt", "won_fcn_jamendo", "won_fcn_msd", "won_fcn_mtt",
    "won_musicnn_jamendo", "won_musicnn_mtt",
]  # fmt: skip


def _trainable(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_constructor_returns_an_ordinary_model(architecture):
    build = getattr(kmt.models, architecture)
    model = build(num_tags=7, name="mine")
    assert type(model) is keras.Model or type(model).__name__ == "Functional"
    assert model.name == "mine"
    assert model.output_shape == (None, 7)
    batch = np.random.default_rng(0).normal(0, 1, (2, *model.input_shape[1:])).astype("float32")
    out = ops.convert_to_numpy(model(batch))
    assert out.shape == (2, 7)
    assert (out >= 0).all() and (out <= 1).all()
    logits = build(num_tags=7, classifier_activation=None)
    assert logits.get_layer("head").activation is keras.activations.linear


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_is_what_embeddings_enter(architecture):
    model = getattr(kmt.models, architecture)()
    head = model.get_layer("head")
    assert head.output is model.output
    assert len(head.input.shape) == 2


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_parameters(architecture):
    model = getattr(kmt.models, architecture)()
    assert (model.count_params(), _trainable(model)) == PARAMETERS[architecture]


def test_the_crnn_saves_54_percent_against_the_baseline():
    crnn, baseline = kmt.models.musicnet_crnn(), kmt.models.baseline_cnn()
    assert round(100 * (1 - crnn.count_params() / baseline.count_params())) == 54
    assert kmt.models.tiny().count_params() < 20_000


def test_the_sequence_of_the_crnn_is_time_major():
    """Each of the five steps must hold all mel bands and channels of one time step, and nothing of another."""
    model = kmt.models.musicnet_crnn()
    pooled, sequence = model.get_layer("pool4").output, model.get_layer("sequence").output
    assert tuple(pooled.shape[1:]) == (4, 5, 128) and tuple(sequence.shape[1:]) == (5, 512)
    marked = np.arange(4 * 5 * 128, dtype="float32").reshape(1, 4, 5, 128)
    steps = model.get_layer("sequence")(model.get_layer("time_major")(marked))
    for step in range(5):
        np.testing.assert_array_equal(ops.convert_to_numpy(steps)[0, step], marked[0, :, step, :].ravel())


def test_musicnn_interleaves_maximum_and_mean():
    model = kmt.models.musicnn()
    features = np.random.default_rng(0).normal(size=(1, 187, 753)).astype("float32")
    pair = [model.get_layer(f"{kind}_column")(model.get_layer(f"{kind}_time")(features)) for kind in ("max", "mean")]
    pooled = ops.convert_to_numpy(model.get_layer("pooled")(model.get_layer("max_and_mean")(pair)))[0]
    np.testing.assert_allclose(pooled[0::2], features[0].max(axis=0), atol=1e-6)
    np.testing.assert_allclose(pooled[1::2], features[0].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_too_small_an_input_is_refused(architecture):
    with pytest.raises(SpecError, match=rf"{architecture} needs an input_shape of at least .* got \(2, 2\)"):
        getattr(kmt.models, architecture)(input_shape=(2, 2))


# Keras 3.10 warns of a model that it has loaded: its inputs are a list there.
@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")
@pytest.mark.filterwarnings("ignore:Exception encountered when calling Functional.call")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_survive_saving_by_keras(architecture, tmp_path):
    model = getattr(kmt.models, architecture)(num_tags=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    batch = np.random.default_rng(0).normal(0, 1, (1, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(batch)), ops.convert_to_numpy(model(batch)), atol=1e-6)


def test_a_step_of_training_changes_every_trainable_weight():
    model = kmt.models.tiny(num_tags=3)
    model.compile("sgd", "binary_crossentropy")
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.normal(size=(8, 32, 63)).astype("float32"), rng.integers(0, 2, (8, 3)).astype("float32"))
    unchanged = [
        v.path
        for v, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(v), old)
    ]
    # A bias in front of batch norm has no gradient but for rounding.
    assert [path for path in unchanged if not path.startswith("conv")] == []


# === Zoo ===


def test_the_zoo_is_complete():
    assert [name for name in kmt.list_models() if not name.startswith("example")] == ZOO


@pytest.mark.parametrize("name", ZOO)
def test_claims_hold(name):
    checks = kmt.validate(name, weights=False)
    assert {
        "layers",
        "input shape",
        "tags",
        "outputs",
        "parameters",
        "trainable parameters",
        "waveform to log-mel",
    } <= {check.name for check in checks}
    assert [check for check in checks if not check.passed] == []


def test_a_broken_claim_is_found(monkeypatch):
    import dataclasses

    from keras_musictag.models import registry

    spec = kmt.model_info("tiny")
    wrong = dataclasses.replace(spec, claims={**spec.claims, "parameters": 1, "layers": {"GRU": [17]}})
    monkeypatch.setitem(registry._specs, "tiny", wrong)
    failed = {
        check.name: (check.expected, check.actual) for check in kmt.validate("tiny", weights=False) if not check.passed
    }
    assert failed == {"parameters": (1, 3829), "layers": ({"GRU": [17]}, {"GRU": [16]})}


@pytest.mark.parametrize("name", ZOO)
def test_specs_are_complete(name):
    spec = kmt.model_info(name)
    assert spec.description and spec.claims
    if spec.weights is None:
        assert spec.weights_help
    else:
        assert spec.license and spec.trained_on and spec.weights.size
    if name != "tiny":
        assert "https://" in spec.paper
        assert len(spec.tags) == (527 if name == "mn04_audioset" else 50)


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (
            (
                "musicnn_mtt",
                "vgg_mtt",
                "musicnet_crnn",
                "musicnet_crnn_fast",
                "won_fcn_mtt",
                "won_crnn_mtt",
                "won_musicnn_mtt",
            ),
            "mtt50",
        ),
        (("musicnn_msd", "vgg_msd", "won_fcn_msd", "won_crnn_msd", "choi_crnn_msd", "musicnet_crnn_msd"), "msd50"),
        (("won_fcn_jamendo", "won_crnn_jamendo", "won_musicnn_jamendo", "musicnet_crnn_jamendo"), "jamendo50"),
        (("mn04_audioset",), "audioset527"),
    ],
)
def test_tag_order_is_the_contract(names, file):
    from importlib import resources

    tags = tuple((resources.files("keras_musictag") / "models" / "tags" / f"{file}.txt").read_text().splitlines())
    for name in names:
        assert kmt.model_info(name).tags == tags
