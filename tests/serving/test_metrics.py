"""Figures that several processes count are read as one."""

import os
import subprocess
import sys

from serving import metrics

COUNT = """
import sys
from serving import metrics
metrics.REQUESTS.labels("/v1/predict", "200").inc(int(sys.argv[1]))
metrics.BATCH.observe(3)
metrics.VERSION.set(int(sys.argv[1]))
"""


def run(code, folder, *arguments):
    known = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=known, check=True, capture_output=True)
    return done.stdout.decode()


def test_two_workers_are_counted_together_after_they_ended(tmp_path):
    for figure in ("2", "5"):
        run(COUNT, tmp_path, figure)
    lines = run("from serving import metrics; print(metrics.text().decode())", tmp_path).splitlines()
    assert 'plumbline_requests_total{route="/v1/predict",status="200"} 7.0' in lines
    assert 'plumbline_batch_pictures_bucket{le="2.0"} 0.0' in lines
    assert 'plumbline_batch_pictures_bucket{le="4.0"} 2.0' in lines
    assert "plumbline_batch_pictures_sum 6.0" in lines
    assert "plumbline_version 5.0" in lines


def test_a_label_with_quotes_is_no_line_of_its_own(tmp_path):
    code = "from serving import metrics; metrics.PICTURES.labels('7', 'champion', 'a\"}\\nfake 1').inc(); "
    said = run(code + "print(metrics.text().decode())", tmp_path)
    assert 'label="a\\"}\\nfake 1"' in said
    assert not any(line.startswith("fake") for line in said.splitlines())


def test_every_figure_is_named_as_ours():
    assert {one._name.split("_")[0] for one in vars(metrics).values() if hasattr(one, "_labelnames")} == {"plumbline"}
