"""The application: the REST interface, together with the page, the WebSocket and the middleware."""

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
from farfeel.serve.hosts import Hosts
from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics
from farfeel.serve.middleware import AccessMiddleware, response_to
from farfeel.serve.worker import Job
from farfeel.serve.workers import WorkerPool

MULTIPART = Form(media_type="multipart/form-data")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Problem, "description": "The request is not a multipart form."},
    401: {"model": schema.Problem, "description": "The key is missing or wrong."},
    403: {"model": schema.Problem, "description": "The request is for another host, or from the page of another host."},
    408: {"model": schema.Problem, "description": "The upload stopped or was too slow."},
    413: {
        "model": schema.Problem,
        "description": "The recording is too large, too long, or takes too much memory or time to decode.",
    },
    415: {"model": schema.Problem, "description": "A file is neither audio nor video, or it is damaged."},
    422: {"model": schema.Problem, "description": "A parameter is wrong, or the recording cannot be used."},
    429: {
        "model": schema.Problem,
        "description": "The server is busy with other recordings.",
        "headers": {
            "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
        },
    },
    503: {"model": schema.Problem, "description": "The server is stopping."},
}
DESCRIPTION = """Recognises the emotion of a person in a recording of distant microphones, a camera, or both.
`/v1/stream` is a WebSocket for live audio, see the documentation of the server. Uploads are deleted after use."""


def create_app(
    recognizer: Recognizer,
    checkpoint: schema.CheckpointInfo,
    limits: Limits,
    api_key: str | None = None,
    page: bool = True,
    hosts: Hosts | None = None,
) -> FastAPI:
    """Create the server as an ASGI application. Its lifespan owns the workers and all temporary files.

    Args:
        recognizer: Recognises the recordings.
        checkpoint: Name and card of its checkpoint.
        limits: The limits of the server.
        api_key: The key that clients must send. None: no key is required.
        page: Whether to serve the web page.
        hosts: The names that the server answers to. Default: those of this machine itself.
    """
    pool = WorkerPool(recognizer, limits, Metrics())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(pool.open)
        try:
            yield
        finally:
            await asyncio.to_thread(pool.close)

    # FastAPI's documentation pages load scripts from another host. The description is at /openapi.json.
    app = FastAPI(
        title="farfeel", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.pool = pool
    _report_errors_as_json(app)
    _add_routes(app, pool, checkpoint)
    page_files = None
    if page:
        from farfeel.serve.page import mount_page

        page_files = mount_page(app, pool, checkpoint)

        @app.get("/", include_in_schema=False)
        async def home() -> RedirectResponse:
            return RedirectResponse("/ui/")

        @app.get("/favicon.ico", include_in_schema=False)
        async def favicon() -> Response:
            return Response(status_code=204)

    app.add_middleware(AccessMiddleware, pool=pool, api_key=api_key, hosts=hosts or Hosts(), page_files=page_files)
    return app


def _add_routes(app: FastAPI, pool: WorkerPool, checkpoint: schema.CheckpointInfo) -> None:
    @app.post("/v1/predict", responses=PROBLEMS, tags=["recordings"], summary="Recognise the emotion in a recording")
    async def predict(request: Request, form: Annotated[schema.Recording, MULTIPART]) -> schema.Prediction:
        """One prediction for the whole recording: the mean over its windows, without the silence at both ends."""
        result = await _run_job(request, pool, checkpoint, form, "prediction")
        return schema.Prediction.model_validate(result)

    @app.post(
        "/v1/timeline",
        responses=PROBLEMS,
        tags=["recordings"],
        summary="Recognise how the emotion changes in a recording",
    )
    async def timeline(request: Request, form: Annotated[schema.TimelineRecording, MULTIPART]) -> schema.Timeline:
        """One prediction for each window. Windows without speech have no label."""
        result = await _run_job(request, pool, checkpoint, form, "timeline", form.step_s)
        return schema.Timeline.model_validate(result)

    @app.get("/v1/health", tags=["server"], summary="Check that the server is running (no key needed)")
    async def health() -> schema.Health:
        return schema.Health()

    unauthorized: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 403)}

    @app.get("/v1/model", responses=unauthorized, tags=["server"], summary="The model and the limits of this server")
    async def model() -> schema.Model:
        recipe, limits = pool.recognizer.recipe, pool.limits
        return schema.Model(
            name=checkpoint.name,
            version=__version__,
            labels=list(pool.recognizer.emotions),
            sample_rate=pool.recognizer.sample_rate,
            window_s=recipe.audio.seconds,
            modalities=pool.recognizer.modalities,
            microphones=recipe.microphones.count,
            card=checkpoint.card,
            limits={"megabytes": limits.megabytes, "seconds": limits.seconds, "channels": limits.channels},
        )

    @app.get(
        "/metrics",
        responses={**unauthorized, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
        tags=["server"],
        summary="Metrics for Prometheus",
    )
    async def metrics() -> Response:
        return Response(pool.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.websocket("/v1/stream")
    async def live(socket: WebSocket) -> None:
        await stream.serve(socket, pool, checkpoint.name)


async def _run_job(
    request: Request,
    pool: WorkerPool,
    checkpoint: schema.CheckpointInfo,
    form: schema.Recording,
    result: str,
    step_s: float = 1.0,
) -> Any:
    """Run a job for an uploaded recording. `result` is "prediction" or "timeline"."""
    job = Job(
        results=(result,),
        limits=pool.limits,
        name=schema.shown_name(form.file.filename),
        checkpoint=checkpoint.name,
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
        files.append(upload.file.fileno())  # fileno() moves the upload to an unnamed file on the disk.
        upload.file.flush()
    cancelled = threading.Event()
    watcher = asyncio.create_task(_watch_client(request, cancelled))
    try:
        with pool.slot():
            return (await pool.run(job, files, cancelled))[result]
    finally:
        watcher.cancel()


async def _watch_client(request: Request, cancelled: threading.Event) -> None:
    """Set `cancelled` when the client closes the connection, because nobody needs the result then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    cancelled.set()


def _report_errors_as_json(app: FastAPI) -> None:
    """Return every error as JSON with one sentence, and add it to the log."""

    def log_detail(request: Request, detail: str) -> None:
        request.scope.get("farfeel", {})["detail"] = detail

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        log_detail(request, refusal.detail)
        return response_to(refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, fault['loc'][1:])) or 'form'}: {fault['msg']}" for fault in error.errors()]
        detail = f"the request does not fit the schema: {'; '.join(faults)}; see /openapi.json"
        log_detail(request, detail)
        return JSONResponse({"detail": detail}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        log_detail(request, str(error.detail))
        return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)
