"""`plumbline predict FOLDER OUT.parquet`: see serving/predicting.py, which Dask workers can import by its name."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from plumbline.common.errors import UserError, run, writing
from plumbline.common.params import load_section
from plumbline.registry.versions import registry_uri
from serving.predicting import predict
from serving.settings import Promoted, ServingParams


def main() -> None:
    """Read the arguments and predict."""
    parser = argparse.ArgumentParser(prog="plumbline predict", description="Answer a folder of pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    if find_spec("pyarrow") is None:
        raise UserError("pyarrow is not installed, and with it Parquet: run `make env`, or `pip install pyarrow`.")
    if given.output.suffix != ".parquet":
        raise UserError(f"{given.output} is no .parquet: name a file that ends so.")
    params = load_section("serving", ServingParams, optional=True)
    model = load_section("promote", Promoted, optional=True).model
    with writing(given.output):
        rows, problems = predict(given.folder, given.output, params, model, registry_uri())
    said = f", {problems} of them could not be read (column problem)" if problems else ""
    print(f"{given.output}: {rows} pictures{said}")


if __name__ == "__main__":
    run(main)
