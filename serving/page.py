"""The page for people, at `/`: with a script that answers in place, and without one by plain forms.

A plain form post (field `file`, to `/` or `/predict`) is answered with HTML: label and confidence = 100 x max softmax.
Where answers are kept, another (`id` and `label`, to `/feedback`) says what a picture really shows.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from plumbline.imaging.decode import DecodeError, decode_resized
from plumbline.pages.template import data_uri, read_asset, render_page
from serving.api import FEEDBACK_BYTES, Service, check_key, client_of, given_key, keep_label
from serving.problems import ProblemError
from serving.uploads import Form, read_fields, read_form

HERE = Path(__file__).parent
SHOWN = 320  # pixels of the pictures in an answer to a plain form


def router(service: Service) -> APIRouter:
    """Return the page's routes."""
    routes = APIRouter(include_in_schema=False)

    async def page() -> HTMLResponse:
        return _page(service)

    async def post(request: Request) -> HTMLResponse:
        try:
            limits = service.params.limits
            form = await read_form(request, limits, limits.pictures)
            check_key(service, request, given_key(request) or form.fields.get("key"))
            explain = bool(form.fields.get("explain"))
            content = await service.answering.answer(form.files, client_of(request), explain=explain)
        except ProblemError as problem:
            return _page(service, problem=problem)
        return _page(service, answers=_with_pictures(form, content["answers"], service), version=content["version"])

    async def feedback(request: Request) -> HTMLResponse:
        try:
            form = await read_fields(request, FEEDBACK_BYTES, service.params.limits.upload_seconds)
            check_key(service, request, given_key(request) or form.get("key", [""])[0])
            if not form.get("label"):
                raise ProblemError(422, "Say what the picture shows.")
            said = {"id": form.get("id", [""])[0], "label": ";".join(form.get("label", []))}
            kept = await keep_label(service, said, client_of(request))
        except ProblemError as problem:
            return _page(service, problem=problem)
        return _page(service, kept=kept["label"], status=201)

    routes.add_api_route("/", page, methods=["GET"])
    routes.add_api_route("/", post, methods=["POST"])
    routes.add_api_route("/predict", post, methods=["POST"])
    routes.add_api_route("/feedback", feedback, methods=["POST"])
    return routes


def _with_pictures(form: Form, answers: list[dict[str, Any]], service: Service) -> list[dict[str, Any]]:
    shown = []
    for file, answer in zip(form.files, answers, strict=True):
        picture = None
        if "refused" not in answer:
            try:
                picture = data_uri(decode_resized(file.content, (SHOWN, SHOWN), service.params.limits.pixels), SHOWN)
            except DecodeError:
                picture = None
        shown.append({**answer, "picture": picture})
    return shown


def _page(
    service: Service,
    answers: list[dict[str, Any]] | None = None,
    problem: ProblemError | None = None,
    version: int | None = None,
    kept: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    served, nonce = service.answering.engine.champion, secrets.token_urlsafe(16)
    html = render_page(
        "page.html.j2",
        "page.css",
        folder=HERE,
        nonce=nonce,
        script=read_asset("page.js", HERE),
        served=served.description() if served else None,
        unsure_below=service.params.unsure.confidence,
        most=service.params.limits.pictures,
        keys=service.keys.wanted,
        answers=answers or [],
        feedback=service.params.record != "none",
        kept=kept,
        problem=problem.detail if problem else None,
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, **(problem.headers if problem else {})}
    if version is not None:
        headers["Plumbline-Version"] = str(version)
    return HTMLResponse(html, problem.status if problem else status, headers)
