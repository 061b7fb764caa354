"""Requests made from the OpenAPI document, and pictures bent out of shape: never a 5xx, never a hang."""

import io

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.mutated import mutated

pytestmark = pytest.mark.slow

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


@pytest.fixture(scope="module")
def seeds():
    """A picture in each format."""
    random = np.random.default_rng(0)
    image = Image.fromarray(np.kron(random.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    found = []
    for name in FORMATS:
        buffer = io.BytesIO()
        image.save(buffer, name)
        found.append(buffer.getvalue())
    return found


def test_no_request_that_the_document_allows_or_forbids_is_a_server_error(service):
    import schemathesis
    from schemathesis.checks import not_a_server_error

    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    tried = []

    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.as_strategy())
        def ask(case):
            answer = case.call(base_url=service.url, timeout=20)
            tried.append(case.path)
            case.validate_response(answer, checks=[not_a_server_error])

        ask()
    assert len(set(tried)) >= 12
    service.wait_ready()


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), place=st.integers(0, len(FORMATS) - 1))
def test_bent_pictures_are_answered_or_refused(service, seeds, seed, place):
    content = mutated(seeds[place], seeds, np.random.default_rng(seed))
    answer = service.client.post("/v1/predict", content=content, headers={"content-type": "image/jpeg"}, timeout=20)
    assert answer.status_code in (200, 413, 422), answer.text
    assert answer.headers["plumbline-version"] == "1"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=300), boundary=st.sampled_from(["x", "", "a" * 80, "\u00e9"]))
def test_torn_forms_are_refused(service, body, boundary):
    kind = f"multipart/form-data; boundary={boundary}".encode()
    try:
        answer = service.client.post("/v1/predict", content=body, headers={b"content-type": kind}, timeout=20)
    except httpx.LocalProtocolError:
        return
    assert answer.status_code in (400, 422), answer.text
