"""A third-party model: one architecture, one spec."""

from keras_musictag import AudioSpec, MelSpec, ModelSpec, WindowSpec, register_model

SPEC = ModelSpec(
    name="example_mean",
    architecture="example_mean",
    audio=AudioSpec(sr=8000),
    mel=MelSpec(n_fft=256, hop_length=128, n_mels=16),
    window=WindowSpec(frames=32),
    tags=("loud", "bright", "busy"),
    weights_help="This example has none.",
    claims={"parameters": 51, "num_tags": 3},
)


@register_model(spec=SPEC)
def example_mean(num_tags=3, *, input_shape=(16, 32), name="example_mean"):
    """Mean over time, one dense layer."""
    import keras

    log_mel = keras.Input(input_shape, name="log_mel")
    mean = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(log_mel)
    return keras.Model(log_mel, keras.layers.Dense(num_tags, "sigmoid", name="head")(mean), name=name)
