"""The routes: each reads a request, asks `Answering`, and writes what it said."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from plumbline.common.served import RECORD, accuracy_by_day
from plumbline.registry.versions import MODEL
from serving import inference_protocol, metrics, tensorflow_rest
from serving.answers import Answering, refused
from serving.batching import BusyError
from serving.engine import Prepared, Unusable
from serving.examples import (
    ANSWERS,
    BATCH_BODY,
    FEEDBACK,
    MODEL_EXAMPLE,
    PICTURES_BODY,
    PREDICT_BODY,
    PREDICTIONS,
    READY,
    STATUS,
    errors,
    problems,
)
from serving.keys import Keys
from serving.links import Fetcher, checked_urls
from serving.model import Served
from serving.problems import ProblemError
from serving.record import Labels
from serving.settings import ServingParams
from serving.uploads import Upload, media_type, read_body, read_form, zip_entries
from serving.worker_status import WorkerStatus

Wanted = TypeVar("Wanted")
LONGEST_LABEL = 200
FEEDBACK_BYTES = 10_000


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    params: ServingParams
    answering: Answering
    keys: Keys
    fetcher: Fetcher
    labels: Labels
    status: WorkerStatus
    model: str = MODEL

    @property
    def version(self) -> int | None:
        """The champion's number."""
        return self.answering.engine.version


def client_of(request: Request) -> str:
    """Return who asks: the holder of the key, else the address."""
    return str(request.scope.get("plumbline.client") or (request.client.host if request.client else "local"))


def given_key(request: Request) -> str | None:
    """Return the key that a request carries."""
    scheme, _, word = request.headers.get("authorization", "").partition(" ")
    return word.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")


def check_key(service: Service, request: Request, key: str | None) -> None:
    """Note whose key it is; ProblemError where one is asked for and it is nobody's."""
    if not service.keys.wanted:
        return
    name = service.keys.name_of(key)
    if name is None:
        raise ProblemError(
            401, "Send a key: `Authorization: Bearer KEY`.", {"WWW-Authenticate": 'Bearer realm="plumbline"'}
        )
    request.scope["plumbline.client"] = name


def routes(service: Service) -> list[APIRouter]:
    """Return the API's routers: those that ask for a key, and those that don't."""

    async def key(request: Request) -> None:  # not `def`, which FastAPI would give to a thread
        check_key(service, request, given_key(request))

    guarded = APIRouter(dependencies=[Depends(key)])
    _add_predictions(guarded, service)
    _add_inference(guarded, service)
    _add_tensorflow(guarded, service)
    guarded.add_api_route("/metrics", _metrics, methods=["GET"], tags=["operations"], response_class=Response,
                          responses={**problems(401), 200: {"content": {"text/plain": {}}}})  # fmt: skip
    opened = APIRouter()
    _add_health(opened, service)
    return [guarded, opened]


async def _metrics() -> Response:
    """Prometheus' figures of all workers."""
    return Response(await asyncio.get_running_loop().run_in_executor(None, metrics.text), media_type="text/plain")


# ------------------------------------------------------------------------------------------------------ predictions


def _add_predictions(router: APIRouter, service: Service) -> None:
    limits = service.params.limits
    views_query = Query(0, ge=0, le=limits.views, description="Views of each picture to score: how sure is it really?")

    async def predict(
        request: Request,
        views: int = views_query,
        explain: Annotated[bool, Query(description="Colour what speaks for the label.")] = False,
    ) -> JSONResponse:
        """Answer one or many pictures."""
        service.answering.check_room()
        form = await read_form(request, limits, limits.pictures)
        content = await service.answering.answer(form.files, client_of(request), views, explain)
        if all("refused" in answer for answer in content["answers"]):
            raise _all_refused(content["answers"])
        return answered(content)

    async def batch(request: Request) -> JSONResponse:
        """Answer every picture of a zip, or behind every URL of a list."""
        kind = media_type(request)
        if kind == "application/zip":
            body = await read_body(request, limits.request_bytes, limits.upload_seconds)
            content = await _answer_zip(service, body, client_of(request))
        elif kind == "application/json":
            content = await _answer_urls(service, await read_json(request, limits.request_bytes, limits.upload_seconds),
                                         client_of(request))  # fmt: skip
        else:
            raise ProblemError(415, "Send a zip as application/zip, or URLs as application/json.")
        return answered(content)

    def model() -> JSONResponse:
        """What is served."""
        served = service.answering.engine.wanted()
        challenger = service.answering.engine.challenger
        content = {
            "model": service.model,
            **served.description(),
            "challenger": challenger.version if challenger else None,
        }
        return JSONResponse(content | {"unsure_below": service.params.unsure.confidence})

    async def feedback(request: Request) -> JSONResponse:
        """Say what a picture really shows; when this is answered, it is on the disk."""
        content = await read_json(request, FEEDBACK_BYTES, limits.upload_seconds)
        return JSONResponse(await keep_label(service, content, client_of(request)), 201)

    async def accuracy() -> JSONResponse:
        """How often the champion was right, by day, on what was labelled."""
        loop = asyncio.get_running_loop()
        days = await loop.run_in_executor(None, accuracy_by_day, service.params.state / RECORD)
        return JSONResponse({"version": service.version, "days": [asdict(day) for day in days]})

    refusals = problems(400, 401, 408, 413, 415, 422, 429, 503)
    add = partial(router.add_api_route, tags=["predictions"])
    add("/v1/predict", predict, methods=["POST"], responses={**ANSWERS, **refusals}, openapi_extra=PICTURES_BODY)
    add(
        "/v1/batch",
        batch,
        methods=["POST"],
        responses={**ANSWERS, **refusals, **problems(403)},
        openapi_extra=BATCH_BODY,
    )
    add("/v1/accuracy", accuracy, methods=["GET"], responses=problems(401))
    add("/v1/model", model, methods=["GET"], responses={**MODEL_EXAMPLE, **problems(401, 503)})
    add("/v1/feedback", feedback, methods=["POST"], status_code=201,
        responses={**problems(400, 401, 404, 408, 409, 413, 415, 422, 503, 507), 201: FEEDBACK[201]},
        openapi_extra=FEEDBACK["body"])  # fmt: skip


def _all_refused(answers: list[dict[str, Any]]) -> ProblemError:
    first = answers[0]
    name = first["file"] or "The body"
    rest = f" (and {len(answers) - 1} more were refused)" if len(answers) > 1 else ""
    return ProblemError(int(first["status"]), f"{name} {first['refused']}{rest}.")


def answered(content: dict[str, Any]) -> JSONResponse:
    """Return answers with the version in the header, too."""
    return JSONResponse(content, headers={"Plumbline-Version": str(content["version"])})


async def read_json(request: Request, most: int, seconds: float) -> Any:
    """Return a request's JSON; ProblemError where it is none."""
    if media_type(request) != "application/json":
        raise ProblemError(415, "Send application/json.")
    body = await read_body(request, most, seconds)
    try:
        content = json.loads(body)
        if b"\\u" in body:  # half a surrogate pair is text to json and to nothing that comes after it
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ProblemError(400, "The body is no JSON.") from None
    return content


async def _answer_zip(service: Service, body: bytes, client: str) -> dict[str, Any]:
    entries = zip_entries(body, service.params.limits)
    loop = asyncio.get_running_loop()

    async def some() -> list[Upload]:
        # Unpacked a batch at a time, off the loop: a zip of 100 MB holds nobody else up.
        return await loop.run_in_executor(None, lambda: list(islice(entries, service.params.batch)))

    return await _in_turns(service, some, client)


async def _answer_urls(service: Service, content: Any, client: str) -> dict[str, Any]:
    urls = iter(checked_urls(content, service.params))

    async def some() -> list[Upload]:
        return list(await asyncio.gather(*(service.fetcher.fetch(url) for url in islice(urls, service.params.batch))))

    return await _in_turns(service, some, client)


async def _in_turns(service: Service, some: Callable[[], Awaitable[list[Upload]]], client: str) -> dict[str, Any]:
    """Answer one batch after the other, all by the version that answered the first."""
    whole: dict[str, Any] | None = None
    answering = service.answering
    role = answering.engine.role_of(client)
    served = answering.engine.wanted(role)
    while files := await some():
        part = await answering.answer(files, client, patient=True, by=(role, served))
        if whole is None:
            whole = part
        else:
            whole["answers"] += part["answers"]
    if whole is None:
        raise ProblemError(422, "There is no picture in it.")
    return whole


async def keep_label(service: Service, content: Any, client: str) -> dict[str, Any]:
    """Keep what `content` ({id, label}) says of an answer, and return it; ProblemError where it can't be kept."""
    if service.params.record == "none":
        raise ProblemError(409, "No answer is kept here (serving.record is none), so none can be labelled.")
    identity, label = (content.get("id"), content.get("label")) if isinstance(content, dict) else (None, None)
    if not isinstance(identity, str) or not isinstance(label, str) or not label or len(identity) > LONGEST_LABEL:
        raise ProblemError(422, 'Send {"id": "the id of an answer", "label": "what the picture shows"}.')
    served = service.answering.engine.wanted()
    given = label.split(";") if not served.task.exclusive else [label]
    if not set(given) <= set(served.classes):
        raise ProblemError(422, f"The label must be one of: {', '.join(served.classes)}.")
    loop = asyncio.get_running_loop()
    try:
        if not await loop.run_in_executor(None, service.labels.known, identity):
            raise ProblemError(404, "No answer of this id is kept here.")
        number = await loop.run_in_executor(None, service.labels.add, identity, label, client)
    except (sqlite3.Error, OSError):
        raise ProblemError(
            507, "The label could not be kept (disk full or record locked): send it again later."
        ) from None
    return {"number": number, "id": identity, "label": label, "version": service.version}


# ----------------------------------------------------------------------------------------------------------- health


def _add_health(router: APIRouter, service: Service) -> None:
    async def healthz() -> JSONResponse:
        """This process lives."""
        return JSONResponse({"status": "alive", "version": service.version})

    async def readyz() -> JSONResponse:
        """Every worker was asked for a real answer."""
        content, ready = await service.status.everybody()
        return JSONResponse(content, 200 if ready else 503)

    add = partial(router.add_api_route, methods=["GET"], tags=["operations"])
    add("/healthz", healthz)
    add("/readyz", readyz, responses=READY)


# ------------------------------------------------------------------------------------------ Open Inference Protocol


def version_of(service: Service, model: str, version: str | None) -> Served | None:
    """Return what answers for a model's version, the champion where none is named; None where it is not served."""
    if model != service.model:
        return None
    engine = service.answering.engine
    champion, challenger = engine.wanted(), engine.challenger
    if version in (None, str(champion.version)):
        return champion
    return challenger if challenger and version == str(challenger.version) else None


def versions_of(service: Service) -> list[int]:
    """Return the numbers of the versions that answer, the champion's first."""
    engine = service.answering.engine
    return [engine.wanted().version, *([engine.challenger.version] if engine.challenger else [])]


def _add_inference(router: APIRouter, service: Service) -> None:
    def known(model: str, version: str | None = None) -> Any:
        served = version_of(service, model, version)
        if served is None:
            raise ProblemError(404, f"Only '{service.model}' is served, in the versions that its metadata names.")
        return served

    def server() -> JSONResponse:
        content = {"name": "plumbline", "version": "1", "extensions": inference_protocol.EXTENSIONS}
        return JSONResponse(content)

    def live() -> JSONResponse:
        return JSONResponse({"live": True})

    async def ready() -> JSONResponse:
        _, good = await service.status.everybody()
        return JSONResponse({"ready": good}, 200 if good else 503)

    def model_ready(model: str, version: str | None = None) -> JSONResponse:
        known(model, version)
        return JSONResponse({"ready": True, "name": service.model})

    def metadata(model: str, version: str | None = None) -> JSONResponse:
        served = known(model, version)
        return JSONResponse(inference_protocol.metadata(service.model, served, versions_of(service)))

    def config(model: str, version: str | None = None) -> JSONResponse:
        return JSONResponse(inference_protocol.config(service.model, known(model, version), service.params.batch))

    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        return await _infer(service, request, known(model, version))

    add = partial(router.add_api_route, tags=["Open Inference Protocol"])
    for path, route in (("", server), ("/health/live", live), ("/health/ready", ready)):
        add(f"/v2{path}", route, methods=["GET"], responses=problems(401, 503))
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        for path, of_model in (("", metadata), ("/ready", model_ready), ("/config", config)):
            add(prefix + path, of_model, methods=["GET"], responses=problems(401, 404, 503))
        add(f"{prefix}/infer", infer, methods=["POST"], openapi_extra=INFER_BODY,
            responses=problems(400, 401, 404, 408, 413, 415, 429, 503))  # fmt: skip


@asynccontextmanager
async def _room(service: Service, pictures: int) -> AsyncIterator[None]:
    """Hold room for so many pictures, for so long as an answer may take; ProblemError where there is none."""
    seconds = service.params.limits.answer_seconds
    try:
        with service.answering.engine.batcher.admitted(pictures):
            async with asyncio.timeout(seconds):
                yield
    except BusyError as error:
        raise refused(error) from None
    except TimeoutError:
        raise ProblemError(503, f"No answer within {seconds:g} s.", {"Retry-After": "5"}) from None


async def _read(service: Service, request: Request, read: Callable[[bytes], Wanted]) -> Wanted:
    """Return what `read` makes of a request's unpacked body, off the loop; ProblemError where there is no room."""
    limits = service.params.limits
    service.answering.check_room()
    body = await read_body(request, limits.request_bytes, limits.upload_seconds)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return await asyncio.get_running_loop().run_in_executor(
        None, lambda: read(inference_protocol.unpacked(body, encoding, limits.request_bytes))
    )


INFER_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {}}}}


async def _infer(service: Service, request: Request, served: Any) -> Response:
    limits, engine = service.params.limits, service.answering.engine
    header = request.headers.get(inference_protocol.JSON_LENGTH)
    wanted = await _read(
        service, request, lambda body: inference_protocol.read_request(body, header, served, limits.pictures)
    )
    async with _room(service, len(wanted.pixels)):
        scored = await engine.batcher.score(served, list(wanted.pixels))
    answer, length = inference_protocol.write_response(service.model, served, wanted, scored)
    answer, packing = inference_protocol.packed(answer, request.headers.get("accept-encoding", ""))
    headers = {"Plumbline-Version": str(served.version)}
    if length is not None:
        headers[inference_protocol.JSON_LENGTH] = str(length)
    if packing:
        headers["Content-Encoding"] = packing
    kind = "application/octet-stream" if length is not None else "application/json"
    return Response(answer, media_type=kind, headers=headers)


# -------------------------------------------------------------------------------------------- TensorFlow Serving's REST


def _add_tensorflow(router: APIRouter, service: Service) -> None:
    def known(model: str, version: str | None) -> Served:
        served = version_of(service, model, version)
        if served is None:
            raise tensorflow_rest.not_served(model, version, service.model)
        return served

    def status(model: str, version: str | None = None) -> JSONResponse:
        """Which versions answer."""
        served = known(model, version)
        return JSONResponse(tensorflow_rest.status([served.version] if version else versions_of(service)))

    async def predict(request: Request, model: str, version: str | None = None) -> Response:
        """Answer pictures as TensorFlow Serving does."""
        return await _predict_tensorflow(service, request, known(model, version))

    add = partial(router.add_api_route, tags=["TensorFlow Serving"])
    for path in ("{model}", "{model}/versions/{version}"):
        add(f"{tensorflow_rest.PREFIX}{path}", status, methods=["GET"], responses={**STATUS, **errors(401, 404, 503)})
        add(f"{tensorflow_rest.PREFIX}{path}:predict", predict, methods=["POST"], openapi_extra=PREDICT_BODY,
            responses={**PREDICTIONS, **errors(400, 401, 404, 408, 413, 415, 422, 429, 503)})  # fmt: skip


async def _predict_tensorflow(service: Service, request: Request, served: Served) -> Response:
    limits, engine = service.params.limits, service.answering.engine
    asked = await _read(service, request, lambda body: tensorflow_rest.read_request(body, served, limits))
    async with _room(service, len(asked.pictures)):
        files = iter(await engine.prepare(served, [one for one in asked.pictures if isinstance(one, Upload)]))
        pictures: list[Any] = []
        for one in asked.pictures:
            ready = next(files) if isinstance(one, Upload) else one
            if isinstance(ready, Unusable):
                metrics.REFUSED.inc()
                raise ProblemError(ready.status, f"{ready.name} {ready.reason}.")
            pictures.append(ready.pixels if isinstance(ready, Prepared) else ready)
        scored = await engine.batcher.score(served, pictures)

    def write() -> tuple[bytes, str | None]:
        content = json.dumps(tensorflow_rest.write_response(asked, scored)).encode()
        return inference_protocol.packed(content, request.headers.get("accept-encoding", ""))

    answer, packing = await asyncio.get_running_loop().run_in_executor(None, write)
    headers = {"Plumbline-Version": str(served.version)} | ({"Content-Encoding": packing} if packing else {})
    return Response(answer, media_type="application/json", headers=headers)
