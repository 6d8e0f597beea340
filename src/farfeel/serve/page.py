"""The web page: it recognises a clip and shows probabilities, face crops, spectrograms and the timeline.

The clip comes from a file, a webcam or a microphone. The page is made with Gradio, which stores uploads as files in a
folder of this server (`PageFiles`). Each upload is deleted within five minutes, so that a user can try other options
until then. The folder is deleted when the server stops. Results are never stored as files: pictures are embedded in the
page. The page exchanges no data with any other host.
"""

from __future__ import annotations

import asyncio
import html
import importlib
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from farfeel.corpora.synthetic import generate
from farfeel.recognise.options import Options
from farfeel.serve.limits import Refusal
from farfeel.serve.middleware import LOG
from farfeel.serve.page_files import PageFiles, remove_leftovers
from farfeel.serve.pictures import bars, images, timeline_chart
from farfeel.serve.schema import MICS_PATTERN, shown_name
from farfeel.serve.worker import Job, position_of
from farfeel.serve.workers import WorkerPool
from farfeel.show.drawing import STYLE as DRAWING_STYLE
from farfeel.show.drawing import colours_of
from farfeel.types import FACES, FarfeelError

if TYPE_CHECKING:
    from farfeel.serve.schema import CheckpointInfo

EXAMPLES = ("happy", "sad", "angry")
STYLE = """
.ff-row {display: grid; grid-template-columns: 6em 1fr 3em; gap: .6em; align-items: center; margin: .2em 0}
.ff-row div {background: color-mix(in srgb, currentColor 10%, transparent); border-radius: 3px; height: 1.1em}
.ff-row i {display: block; height: 100%; border-radius: 3px}
.ff-row b {text-align: right; font-weight: 500}
.ff-faces, .ff-mels {display: flex; flex-wrap: wrap; gap: .5em}
.ff-faces img {width: 112px; border-radius: 4px}
.ff-mels figure {flex: 1 1 100%; margin: 0}
.ff-mels img {width: 100%; height: 110px; object-fit: fill; border-radius: 4px}
.ff-mels figcaption {font-size: .85em; opacity: .7}
.ff-problem {border-left: 4px solid #c8443c; padding: .6em 1em}
"""
INTRODUCTION = """# farfeel
Add a video, an audio file or both, or record a clip, and press **Recognise**. The audio of a video is used unless you
add an audio file, for example from a microphone array. This server decodes your files, sends them nowhere, and deletes
them within five minutes. The model was trained on acted speech, so its answers say little about real feelings.
"""


def mount_page(app: FastAPI, pool: WorkerPool, checkpoint: CheckpointInfo) -> PageFiles:
    """Add the page to an application, at /ui.

    Args:
        app: The application.
        pool: Runs the jobs of the page.
        checkpoint: Name and card of the checkpoint.

    Returns:
        The files of the page. They are created here and deleted at the end of the lifespan.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    remove_leftovers()
    files = PageFiles(pool.limits)
    os.environ["GRADIO_TEMP_DIR"] = str(files.folder / "uploads")
    import gradio as gr

    _print_errors_in_one_line()
    page = _build_page(gr, pool, checkpoint, generate(files.folder / "examples", speakers=1, clips_per_emotion=1))
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    gr.mount_gradio_app(
        app,
        page,
        "/ui",
        max_file_size=pool.limits.bytes,
        theme=theme,
        css=STYLE + DRAWING_STYLE,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    files.examples = {path for path in files.folder.rglob("*") if path.is_file()}
    app_lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        sweeper = asyncio.create_task(files.sweep_forever())
        try:
            async with app_lifespan(app) as state:
                yield state
        finally:
            sweeper.cancel()
            files.close()

    app.router.lifespan_context = lifespan
    return files


class _OneLine:
    """Gradio's `traceback` module, but an exception is one line of the log."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def print_exc(self) -> None:
        """Log the exception that is handled now."""
        error = sys.exception()
        if error is not None:
            LOG.info("page failed on a request: %s in %s", type(error).__name__, position_of(error))


def _print_errors_in_one_line() -> None:
    """Gradio prints a traceback for each wrong request, so any client could fill the log. It has no setting for it."""
    for name in ("queueing", "routes", "route_utils"):
        module = importlib.import_module(f"gradio.{name}")
        if hasattr(module, "traceback"):
            vars(module)["traceback"] = _OneLine()


def _build_page(gr: Any, pool: WorkerPool, checkpoint: CheckpointInfo, examples: Path) -> Any:
    """The page as Gradio blocks. `examples` is a folder of clips."""
    colours = {emotion: fill for emotion, (fill, _) in colours_of(pool.recognizer.emotions).items()}
    has_video, has_audio = pool.recognizer.modalities != "audio", pool.recognizer.modalities != "video"

    async def recognise(
        video: str | None, audio: str | None, mics: str, face: str, modalities: str, offset_s: float
    ) -> tuple[str, str, str, str]:
        began = time.monotonic()
        try:
            answer = await _recognise(pool, checkpoint, [video, audio], mics, face, modalities, offset_s)
        except Refusal as refusal:
            LOG.info("page %s in %.2f s: %s", refusal.status, time.monotonic() - began, refusal.detail)
            return f'<div class="ff-problem" id="ff-problem">{html.escape(refusal.detail)}</div>', "", "", ""
        LOG.info("page 200 in %.2f s", time.monotonic() - began)
        views = answer["views"]
        return (
            bars(answer["prediction"], colours),
            images(views, "faces") if has_video else "",
            images(views, "mels") if has_audio else "",
            timeline_chart(answer["timeline"], list(colours)),
        )

    with gr.Blocks(title="farfeel", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                inputs, button = _add_inputs(gr, has_video, has_audio, examples)
            with gr.Column():
                answer = gr.HTML(elem_id="ff-answer")
                faces = gr.HTML(visible=has_video)
                mels = gr.HTML(visible=has_audio)
        timeline = gr.HTML()
        if checkpoint.card:
            with gr.Accordion("about the model", open=False):
                gr.Markdown(checkpoint.card)
        button.click(
            recognise,
            inputs,
            [answer, faces, mels, timeline],
            api_visibility="private",
            concurrency_limit=None,  # The pool limits the number of jobs.
            show_progress_on=answer,
        )
    return page


def _add_inputs(gr: Any, has_video: bool, has_audio: bool, examples: Path) -> tuple[list[Any], Any]:
    """Add the inputs to the page → the components with the arguments of `recognise`, and the button that calls it."""
    clips = [sorted(examples.rglob(f"*-{emotion}-*.mp4"))[0] for emotion in EXAMPLES]
    video = gr.Video(
        label="video",
        sources=["upload", "webcam"],
        include_audio=True,
        webcam_options=gr.WebcamOptions(mirror=False),
        height=320,
        visible=has_video,
        buttons=[],
    )
    audio = gr.Audio(
        label="audio (alone, or to replace the audio of the video)",
        sources=["upload", "microphone"],
        type="filepath",
        visible=has_audio,
        buttons=[],
    )
    with gr.Accordion("options", open=False):
        mics = gr.Textbox(
            "", label="microphones", info="channels to use, counted from 0, for example 0,2,4; empty: all"
        )
        face = gr.Radio(list(FACES), value="largest", label="face", visible=has_video)
        modalities = gr.Radio(["both", "audio", "video"], value="both", label="modalities to use", visible=has_video)
        offset_s = gr.Number(
            0, label="seconds from the start of the video to the start of the audio file", visible=has_video
        )
    button = gr.Button("Recognise", variant="primary", elem_id="ff-go")
    gr.Examples(
        [[str(clip), str(clip.with_suffix(".flac"))] for clip in clips],
        [video, audio],
        label="examples with artificial voices and faces",
        example_labels=[f"artificial voice and face, {emotion}" for emotion in EXAMPLES],
        cache_examples=False,
        api_visibility="private",
    )
    return [video, audio, mics, face, modalities, offset_s], button


async def _recognise(
    pool: WorkerPool,
    checkpoint: CheckpointInfo,
    uploads: list[str | None],
    mics: str,
    face: str,
    modalities: str,
    offset_s: float,
) -> dict[str, Any]:
    paths = [Path(upload) for upload in uploads if upload]
    mics = "".join(mics.split())
    if not paths:
        raise Refusal(422, "there is no clip, expected a video or an audio file; add a file or record a clip")
    if mics and not re.fullmatch(MICS_PATTERN, mics):
        raise Refusal(422, f"the microphones are {mics!r}, expected numbers from 0 on, for example 0,2,4; correct them")
    try:
        options = Options(
            mics=tuple(dict.fromkeys(map(int, mics.split(",")))) if mics else None,
            audio_offset_s=float(offset_s or 0),
            face=face,
            modalities=modalities,
        )
    except FarfeelError as error:
        raise Refusal(422, str(error)) from None
    job = Job(
        results=("prediction", "views", "timeline"),
        limits=pool.limits,
        name=shown_name(paths[0].name),
        checkpoint=checkpoint.name,
        files=len(paths),
        options=options,
    )
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(path.open("rb")).fileno() for path in paths]
        except FileNotFoundError:
            raise Refusal(422, "the clip is no longer on the server; add it again") from None
        stack.enter_context(pool.slot())
        return await pool.run(job, files, threading.Event())
