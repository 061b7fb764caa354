"""Run one other tool on a folder, in an environment of its own: `PEER/bin/python benchmarks/peers.py TOOL FOLDER`.

Prints JSON: {"seconds": ..., "pairs": [[path, path], ...]}, paths relative to the folder. Uses nothing of Plumbline.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path


def imagededup(folder: str) -> list[tuple[str, str]]:
    from imagededup.methods import PHash

    method = PHash(verbose=False)
    hashes = method.encode_images(image_dir=folder, recursive=True, num_enc_workers=0)
    found = method.find_duplicates(encoding_map=hashes, max_distance_threshold=10, num_dist_workers=0)
    return [(a, b) for a, others in found.items() for b in others]


def cleanvision(folder: str) -> list[tuple[str, str]]:
    from cleanvision import Imagelab

    lab = Imagelab(data_path=folder)
    lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
    sets = [s for kind in ("near_duplicates", "exact_duplicates") for s in lab.info[kind]["sets"]]
    return [(one[0], other) for one in sets for other in one[1:]]


def fastdup(folder: str) -> list[tuple[str, str]]:
    import tempfile

    import fastdup as tool

    with tempfile.TemporaryDirectory() as work:
        run = tool.create(work_dir=work, input_dir=folder)
        run.run(ccthreshold=0.9, num_threads=1, overwrite=True, print_summary=False)
        table = run.similarity()
        return list(zip(table["filename_from"], table["filename_to"], strict=True))


def main() -> None:
    tool, folder = sys.argv[1], os.path.abspath(sys.argv[2])
    start = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        pairs = {"imagededup": imagededup, "cleanvision": cleanvision, "fastdup": fastdup}[tool](folder)
    seconds = time.perf_counter() - start
    relative = [[os.path.relpath(os.path.join(folder, p), folder) for p in pair] for pair in pairs]
    print(json.dumps({"seconds": seconds, "pairs": [[Path(a).as_posix(), Path(b).as_posix()] for a, b in relative]}))


if __name__ == "__main__":
    main()
