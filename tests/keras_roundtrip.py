"""Holds the files that SpiDNN writes against the real Keras, and makes files with the real Keras for SpiDNN to read.

    python tests/keras_roundtrip.py check FOLDER   # FOLDER/manifest.json lists what SpiDNN wrote
    python tests/keras_roundtrip.py make FOLDER    # writes models, weights and predictions into FOLDER

`cargo test -p spidnn-import --test keras` runs both where Python with Keras is found (SPIDNN_KERAS_PYTHON names another
interpreter than `python3`). The last line of the output is one JSON object.
"""

import json
import os
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import h5py
import numpy as np

import keras
from keras import layers

RELATIVE_MAX = 2e-6


def predictions(model, inputs):
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.asarray(output) for output in outputs]


def arrays(npz, letter):
    """x, or x0, x1, ..: in order."""
    if letter in npz.files:
        return [npz[letter]]
    names = [name for name in npz.files if name[: len(letter)] == letter and name[len(letter) :].isdigit()]
    return [npz[name] for name in sorted(names, key=lambda name: int(name[len(letter) :]))]


def difference(found, expected):
    assert len(found) == len(expected), f"{len(found)} outputs, {len(expected)} expected"
    worst = 0.0
    for a, b in zip(found, expected):
        assert a.shape == b.shape, f"output of shape {a.shape}, expected {b.shape}"
        worst = max(worst, float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-30)))
    return worst


def same_weights(model, expected):
    found = model.get_weights()
    assert len(found) == len(expected), f"{len(found)} weights, {len(expected)} expected"
    for index, (a, b) in enumerate(zip(found, expected)):
        assert np.array_equal(a, b), f"weight {index} differs"


def load(folder, entry, kind):
    path = os.path.join(folder, entry["files"][kind])
    if kind in ("keras", "h5"):
        return keras.models.load_model(path)
    with open(os.path.join(folder, entry["files"]["json"])) as file:
        model = keras.models.model_from_json(file.read())
    if kind == "npz":
        stored = np.load(path)
        model.set_weights([stored[f"w{index:03}"] for index in range(len(stored.files))])
    elif kind == "weights_json":
        with open(path) as file:
            stored = json.load(file)["weights"]
        model.set_weights([np.array(w["data"], np.float32).reshape(w["shape"]) for w in stored])
    else:
        model.load_weights(path)
    return model


def check_one(folder, entry, kind):
    with warnings.catch_warnings():
        # A variable that Keras could not restore is only a warning there; here it is a failure.
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model = load(folder, entry, kind)
    io = np.load(entry["io"])
    worst = difference(predictions(model, arrays(io, "x")), arrays(io, entry.get("output", "y")))
    assert worst <= RELATIVE_MAX, f"predictions differ by {worst:.3g} of the largest"
    if entry.get("weights"):
        stored = np.load(entry["weights"])
        prefix = entry.get("weights_prefix", "w")
        names = sorted(name for name in stored.files if name[0] == prefix and name[1:].isdigit())
        same_weights(model, [stored[name] for name in names])
    if kind in ("keras", "h5") and entry.get("optimizer"):
        stored = np.load(entry["optimizer"])
        names = sorted(name for name in stored.files if name[0] == "o" and name[1:].isdigit())
        if kind == "keras":
            variables = [np.asarray(variable) for variable in model.optimizer.variables]
        else:
            # Keras 3.15 does not restore the optimizer from legacy files, not even from its own (it builds it for no
            # variables), so the file itself is looked at, as Keras lays it out.
            with h5py.File(os.path.join(folder, entry["files"][kind]), "r") as file:
                group = file["optimizer_weights"]
                variables = [group[name][()] for name in group.attrs["weight_names"]]
        assert len(variables) == len(names), f"{len(variables)} optimizer variables, {len(names)} expected"
        for name, variable in zip(names, variables):
            assert np.array_equal(variable, stored[name]), f"optimizer variable {name} differs"
    if kind in ("keras", "h5") and entry.get("compiled"):
        config = model.get_compile_config() if hasattr(model, "get_compile_config") else {}
        assert getattr(model, "optimizer", None) is not None, f"not compiled: {config}"
        wanted = entry["compiled"]
        assert type(model.optimizer).__name__ == wanted["optimizer"], type(model.optimizer).__name__
        found = model.optimizer.get_config()
        for key, value in wanted.get("config", {}).items():
            assert np.allclose(found[key], value, rtol=1e-6), f"{key}: {found[key]}, expected {value}"
        if kind == "keras":
            # It can go on training (from a legacy file Keras cannot, see above).
            x = np.zeros((2, *model.input_shape[1:]), "float32")
            y = np.zeros((2,) if "sparse" in entry["compiled"]["loss"] else (2, *model.output_shape[1:]), "float32")
            model.train_on_batch(x, y)
    return worst


def check(folder):
    with open(os.path.join(folder, "manifest.json")) as file:
        manifest = json.load(file)
    failures, checked, worst = [], 0, 0.0
    for entry in manifest:
        for kind in entry["files"]:
            if kind == "json":
                continue
            keras.utils.clear_session()
            try:
                worst = max(worst, check_one(folder, entry, kind))
                checked += 1
            except Exception as error:  # every failure is to be seen, not only the first
                failures.append(f"{entry['name']} as {kind}: {type(error).__name__}: {str(error)[:400]}")
    print(json.dumps({"keras": keras.__version__, "checked": checked, "worst": worst, "failures": failures}))
    return 1 if failures else 0


def randomize(model, seed):
    generator = np.random.default_rng(seed)
    model.set_weights(
        [
            (generator.random(w.shape) + 0.5 if "variance" in v.path else generator.standard_normal(w.shape) * 0.3)
            .astype("float32")
            for v, w in zip(model.weights, model.get_weights())
        ]
    )


def models():
    """Models beyond the golden ones: inside one another, shared, compiled, with activations that are layers."""
    keras.utils.set_random_seed(7)

    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, activation="tanh"), layers.BatchNormalization()], name="inner")
    x = layers.Input((6,), name="x")
    side = layers.Input((6,), name="side")
    two_in = layers.Input((6,))
    branch = keras.Model(two_in, [layers.Dense(4, name="dense")(two_in), layers.Dense(5)(two_in)], name="branch")
    once = inner(x)
    twice = inner(once)
    a, b = branch(layers.Add()([twice, side]))
    yield "nested", keras.Model([x, side], [layers.Dense(3, name="head")(a), b]), None

    x = layers.Input((8,))
    frozen = keras.Sequential([layers.Input((8,)), layers.BatchNormalization(), layers.Dense(4)], name="frozen")
    frozen.layers[0].trainable = False
    yield "nested_frozen", keras.Model(x, layers.Dense(2)(frozen(x))), None

    deep = keras.Sequential([layers.Input((5,)), layers.Dense(4)])
    for _ in range(3):
        deep = keras.Sequential([layers.Input((5,)), deep, layers.Dense(4), layers.Dense(5), layers.Activation("relu")])
        deep = keras.Sequential([layers.Input((5,)), deep])
    yield "nested_deep", deep, None

    shared = layers.Dense(5, activation="relu")
    x = layers.Input((5,))
    y = shared(layers.Dense(5)(shared(x)))
    yield "shared", keras.Model(x, layers.Concatenate()([y, layers.Multiply()([x, y])])), None

    yield "activations", keras.Sequential(
        [
            layers.Input((9,)),
            layers.Dense(8, activation=layers.LeakyReLU(negative_slope=0.3)),
            layers.Dense(8, activation="relu6"),
            layers.Dense(8, activation=layers.ELU(alpha=0.5)),
            layers.ReLU(max_value=1.5),
            layers.Softmax(),
        ]
    ), None

    compiled = keras.Sequential([layers.Input((6, 6, 2)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(4)])
    compiled.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
        metrics=["accuracy"],
    )
    generator = np.random.default_rng(3)
    compiled.fit(generator.standard_normal((16, 6, 6, 2)), generator.integers(0, 4, 16), batch_size=4, verbose=0)
    yield "compiled", compiled, "trained"


def make(folder):
    os.makedirs(folder, exist_ok=True)
    names = []
    for seed, (name, model, trained) in enumerate(models()):
        if not trained:
            randomize(model, seed)
        generator = np.random.default_rng(100 + seed)
        inputs = [generator.standard_normal((3, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
        outputs = predictions(model, inputs)
        named = {f"x{i}": x for i, x in enumerate(inputs)} | {f"y{i}": y for i, y in enumerate(outputs)}
        if trained:
            named |= {f"o{i:03}": np.asarray(v) for i, v in enumerate(model.optimizer.variables)}
        np.savez(os.path.join(folder, f"{name}.io.npz"), **named)
        np.savez_compressed(os.path.join(folder, f"{name}.npz"), **{f"w{i:03}": w for i, w in enumerate(model.get_weights())})
        model.save(os.path.join(folder, f"{name}.keras"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(os.path.join(folder, f"{name}.h5"))
        model.save_weights(os.path.join(folder, f"{name}.weights.h5"))
        with open(os.path.join(folder, f"{name}.json"), "w") as file:
            file.write(model.to_json())
        names.append(name)
    print(json.dumps({"keras": keras.__version__, "models": names}))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "make"):
        sys.exit(__doc__)
    sys.exit({"check": check, "make": make}[sys.argv[1]](sys.argv[2]))
