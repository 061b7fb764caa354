"""A version whose network is six ONNX nodes and tells bright pictures from dark ones: made in milliseconds."""

from __future__ import annotations

import io
import json
import math
import sqlite3
from contextlib import closing

import numpy as np
from brightest import SIDE, write_network
from PIL import Image

from plumbline.registry import bundle
from plumbline.registry.versions import DIGEST_TAG
from serving.settings import ServingParams
from serving.shelf import EMBEDDINGS, GROUPS, SERVING, Role, Roles, Shelf

TEMPERATURE, THRESHOLD = 2.0, 0.9


def p_bright(brightest, temperature=1.0):
    """What the network says of a picture by its brightest value: the softmax of -x and x for x = (b - 128) / 32."""
    return 1 / (1 + math.exp(-2 * (brightest - 128) / 32 / temperature))


def write_version(folder):
    """A sealed version; return its digest. Its reference holds reds, greens and blues, each a group of its own."""
    (folder / GROUPS).parent.mkdir(parents=True)
    write_network(folder / bundle.ONNX)
    serving = {
        "candidate": "brightness",
        "classes": ["dark", "bright"],
        "temperature": TEMPERATURE,
        "threshold": THRESHOLD,
        "violation_class": "bright",
    }
    (folder / SERVING).write_text(json.dumps(serving))
    np.save(folder / EMBEDDINGS, np.ones((6, 3), np.float32) + np.eye(6, 3, dtype=np.float32) / 10)
    np.save(folder / GROUPS, np.arange(6))
    return bundle.seal(folder)


def on_the_shelf(root, **settings):
    """Settings of a service whose shelf holds the version as its champion, number 7."""
    digest = write_version(root / "version")
    params = ServingParams(state=root / "served", workers=1, batch=4, **settings)
    shelf = Shelf(params.state)
    shelf.put(root / "version", digest)
    shelf.write_roles(Roles(champion=Role(version=7, digest=digest)))
    return params


def grey(value, side=SIDE):
    """A picture (S, S, 3) all of one grey."""
    return np.full((side, side, 3), value, np.uint8)


def encoded(rgb):
    """A picture as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


TABLES = """
create table registered_model_aliases (name text, alias text, version integer);
create table model_versions (name text, version integer, storage_location text);
create table model_version_tags (name text, version integer, key text, value text);
"""


def in_a_registry(database, folder, digest, version=7):
    """The tables of MLflow's that serving reads, with a champion; return the registry's address."""
    with closing(sqlite3.connect(database)) as opened:
        opened.executescript(TABLES)
        opened.execute("insert into registered_model_aliases values ('plumbline', 'champion', ?)", (version,))
        opened.execute("insert into model_versions values ('plumbline', ?, ?)", (version, folder.as_uri()))
        opened.execute("insert into model_version_tags values ('plumbline', ?, ?, ?)", (version, DIGEST_TAG, digest))
        opened.commit()
    return f"sqlite:///{database}"
