"""Train the tiny network, export it, and keep what Keras says of the known pictures: `export.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np


def known_paths():
    """The pictures that tests ask about."""
    return [f"{label}/{n}.png" for n, label in enumerate(["with_helmet", "without_helmet"] * 20)]


def main(folder):
    """Write FOLDER/project/exported and FOLDER/keras.npy."""
    import keras

    from benchmarks.tiny_project import export_project, pictures, write_project

    write_project(folder / "project")
    export_project(folder / "project")
    home = folder / "project" / "exported" / "plumbline"
    model = keras.models.model_from_json((home / "keras.json").read_text())
    model.load_weights(home / "model.weights.h5")
    pixels = np.stack(list(pictures(known_paths()))).astype(np.float32)
    np.save(folder / "keras.npy", np.asarray(model(pixels, training=False))[:, 0])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(Path(sys.argv[1]))
