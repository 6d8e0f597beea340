"""The REST interface, and all of the server put together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Form, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from farfeel import __version__
from farfeel.recognise.options import Options
from farfeel.recognise.recognizer import Recognizer
from farfeel.serve import schema, stream
from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics
from farfeel.serve.middleware import Gate, response_to
from farfeel.serve.worker import Job
from farfeel.serve.workers import Desk

MULTIPART = Form(media_type="multipart/form-data")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Problem, "description": "The request is no multipart form."},
    401: {"model": schema.Problem, "description": "The key is missing or wrong."},
    408: {"model": schema.Problem, "description": "The upload stopped."},
    413: {"model": schema.Problem, "description": "Too many bytes or seconds, or too much memory or time to decode."},
    415: {"model": schema.Problem, "description": "A file is no sound and no film, or broken."},
    422: {"model": schema.Problem, "description": "A parameter or the recording cannot be used."},
    429: {
        "model": schema.Problem,
        "description": "Too many recordings at a time.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
    503: {"model": schema.Problem, "description": "The server is stopping."},
}
ABOUT = """Recognises the emotion of a person in a recording: several distant microphones, a camera, or both.
`/v1/stream` is a WebSocket for live sound; see the server's documentation. Nothing that is uploaded is kept."""


def create_app(
    recognizer: Recognizer, about: schema.CheckpointInfo, limits: Limits, api_key: str | None = None, page: bool = True
) -> FastAPI:
    """The server as an ASGI application; its lifespan owns the workers and every temporary file."""
    desk = Desk(recognizer, limits, Metrics())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(desk.open)
        try:
            yield
        finally:
            await asyncio.to_thread(desk.close)

    # FastAPI's own documentation pages fetch scripts from another host; the description is at /openapi.json.
    app = FastAPI(
        title="farfeel", version=__version__, description=ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.desk = desk
    _answer_in_sentences(app)
    _add_routes(app, desk, about)
    if page:
        from farfeel.serve.page import mount_page

        mount_page(app, desk, about)

        @app.get("/", include_in_schema=False)
        async def home() -> RedirectResponse:
            return RedirectResponse("/ui/")

        @app.get("/favicon.ico", include_in_schema=False)
        async def favicon() -> Response:
            return Response(status_code=204)

    app.add_middleware(Gate, desk=desk, api_key=api_key)
    return app


def _add_routes(app: FastAPI, desk: Desk, about: schema.CheckpointInfo) -> None:
    @app.post("/v1/predict", responses=PROBLEMS, tags=["recordings"], summary="The emotion of one recording")
    async def predict(request: Request, form: Annotated[schema.Recording, MULTIPART]) -> schema.Prediction:
        """One answer for the whole recording: the mean over its windows, silence at its ends left out."""
        found = await _work(request, desk, about, form, "prediction")
        return schema.Prediction.model_validate(found)

    @app.post("/v1/timeline", responses=PROBLEMS, tags=["recordings"], summary="How it changes in a recording")
    async def timeline(request: Request, form: Annotated[schema.TimelineRecording, MULTIPART]) -> schema.Timeline:
        """An answer for each window; none for windows in which nobody speaks."""
        found = await _work(request, desk, about, form, "timeline", form.step_s)
        return schema.Timeline.model_validate(found)

    @app.get("/v1/health", tags=["server"], summary="Whether the server is there; needs no key")
    async def health() -> schema.Health:
        return schema.Health()

    key: dict[int | str, dict[str, Any]] = {401: PROBLEMS[401]}

    @app.get("/v1/model", responses=key, tags=["server"], summary="What this server recognises with, and takes")
    async def model() -> schema.Model:
        recipe, limits = desk.recognizer.recipe, desk.limits
        return schema.Model(
            name=about.name,
            version=__version__,
            labels=list(desk.recognizer.emotions),
            sample_rate=desk.recognizer.sample_rate,
            window_s=recipe.audio.seconds,
            modalities=desk.recognizer.modalities,
            microphones=recipe.microphones.count,
            card=about.card,
            limits={"megabytes": limits.megabytes, "seconds": limits.seconds, "channels": limits.channels},
        )

    @app.get(
        "/metrics",
        responses={**key, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
        tags=["server"],
        summary="Counters for Prometheus",
    )
    async def metrics() -> Response:
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.websocket("/v1/stream")
    async def live(socket: WebSocket) -> None:
        await stream.serve(socket, desk, about.name)


async def _work(
    request: Request, desk: Desk, about: schema.CheckpointInfo, form: schema.Recording, wants: str, step_s: float = 1.0
) -> Any:
    job = Job(
        wants=(wants,),
        limits=desk.limits,
        name=schema.shown_name(form.file.filename),
        checkpoint=about.name,
        files=1 if form.audio is None else 2,
        options=Options(
            mics=form.microphones,
            audio_offset_s=form.audio_offset_s,
            face=form.face,
            modalities=form.modalities,
            abstain_below=form.abstain_below,
        ),
        step_s=step_s,
    )
    uploads = [form.file] if form.audio is None else [form.file, form.audio]
    files = []
    for upload in uploads:
        files.append(upload.file.fileno())  # from here on it is on the disk, without a name
        upload.file.flush()
    gone = threading.Event()
    watch = asyncio.create_task(_watch(request, gone))
    try:
        return (await desk.work(job, files, gone))[wants]
    finally:
        watch.cancel()


async def _watch(request: Request, gone: threading.Event) -> None:
    """Sets `gone` when the client leaves: its work is for nobody."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _answer_in_sentences(app: FastAPI) -> None:
    """Every error is JSON with one sentence, and told to the log."""

    def tell(request: Request, detail: str) -> None:
        request.scope.get("farfeel", {})["detail"] = detail

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        tell(request, refusal.detail)
        return response_to(refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, fault['loc'][1:])) or 'form'}: {fault['msg']}" for fault in error.errors()]
        detail = f"the request does not fit: {'; '.join(faults)}; see /openapi.json"
        tell(request, detail)
        return JSONResponse({"detail": detail}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        tell(request, str(error.detail))
        return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)
