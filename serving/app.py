"""The application: routes, the page, and what is true of every response."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics, page, tensorflow_rest
from serving.answers import refused
from serving.api import Service, given_key, routes
from serving.batching import BusyError
from serving.problems import MEDIA, ProblemError, busy

log = logging.getLogger("serving")
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(service: Service, lifespan: Lifespan) -> FastAPI:
    """Return the application."""
    about = {"title": "Plumbline", "summary": "The champion at work.", "version": "1"}
    app = FastAPI(**about, docs_url=None, redoc_url=None, lifespan=lifespan)  # type: ignore[arg-type]
    for router in (*routes(service), page.router(service)):
        app.include_router(router)
    _add_refusals(app, service)
    if service.params.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.params.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Plumbline-Version", "Retry-After"],
        )
    app.add_middleware(Always, service=service)
    return app


def _add_refusals(app: FastAPI, service: Service) -> None:
    def refused(request: Request, problem: ProblemError) -> JSONResponse:
        return written(problem, request.url.path, service.version)

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ProblemError)
        return refused(request, error)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        sentence = {404: "There is nothing at this address.", 405: "This address takes other methods."}
        detail = sentence.get(error.status_code, str(error.detail))
        return refused(request, ProblemError(error.status_code, detail, error.headers))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return refused(request, ProblemError(422, f"{first['loc'][-1]}: {first['msg']}."))

    app.add_exception_handler(ProblemError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def written(problem: ProblemError, path: str, version: int | None) -> JSONResponse:
    """Return a refusal as clients of the address `path` read it: RFC 9457's, or TensorFlow Serving's."""
    if path.startswith(tensorflow_rest.PREFIX):
        return JSONResponse({"error": problem.detail}, problem.status, problem.headers)
    return JSONResponse(problem.content(version), problem.status, problem.headers, MEDIA)


class Crowded:
    """Refuses pictures at once where the queue is full, before the application hears of them.

    In a crowd ten requests are refused for one that is answered. Through routing, dependencies and handlers a refusal
    takes 0.3 ms of processor time, where a picture of MobileNetV2 takes 6.5: ten times over, the refused would take a
    third of the machine. What asks from another origin, names a version in the address or brings no valid key goes the
    long way.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        model = f"models/{service.model}"
        self._routes = {
            "/v1/predict": "/v1/predict",
            f"/v1/{model}:predict": "/v1/models/{model}:predict",
            f"/v2/{model}/infer": "/v2/models/{model}/infer",
        }
        self._written = lru_cache(64)(self._write)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        started = time.perf_counter()
        full = self._full(scope) if scope["type"] == "http" else None
        if full is None:
            await self._app(scope, receive, send)
            return
        problem = refused(full)
        headers, body = self._written(full.seconds, scope["path"], self._service.version)
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        count(self._routes[scope["path"]], problem.status, started)

    def _full(self, scope: Scope) -> BusyError | None:
        """Return why a request is refused here, None where it is handed on; who is let in is asked nothing twice."""
        service = self._service
        if scope["method"] != "POST" or scope["path"] not in self._routes or service.version is None:
            return None
        try:
            service.answering.engine.batcher.check(1)
        except BusyError as error:
            if service.params.cors and any(name == b"origin" for name, _ in scope["headers"]):
                return None
            stranger = service.keys.wanted and service.keys.name_of(given_key(Request(scope))) is None
            return None if stranger else error
        return None

    def _write(self, seconds: int, path: str, version: int | None) -> tuple[list[tuple[bytes, bytes]], bytes]:
        response = written(busy(seconds), path, version)
        return with_ours(response.raw_headers, version), bytes(response.body)


def with_ours(headers: Iterable[tuple[bytes, bytes]], version: int | None) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with those that every response has."""
    headers = list(headers)
    given = {name.lower() for name, _ in headers}
    ours = HEADERS | {b"plumbline-version": str(version if version is not None else "none").encode()}
    return [*headers, *((name, value) for name, value in ours.items() if name not in given)]


def count(route: str, status: int, started: float) -> None:
    """Count a request, and its seconds since `started` (of `time.perf_counter`)."""
    metrics.REQUESTS.labels(route, str(status)).inc()
    metrics.SECONDS.labels(route).observe(time.perf_counter() - started)


class Always:
    """Headers on every response, figures of every request, and one sentence where a bug shows."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = with_ours(message["headers"], self._service.version)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:
            status = 499  # nobody is there to be answered
        except Exception:
            log.exception("a request failed")
            if status:
                raise
            problem = ProblemError(500, "Something went wrong here; it is in the server's log.")
            await written(problem, scope["path"], self._service.version)(scope, receive, with_headers)
        finally:
            route: Any = scope.get("route")
            count(getattr(route, "path", "none"), status, started)
