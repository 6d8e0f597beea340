"""The web page: a clip in, from a file, a webcam or a microphone; the face, spectrograms, bars and the timeline out.

It is made with Gradio, which keeps what is uploaded as files. They lie in a folder of this server alone, each for five
minutes, so that one may try other options; the folder goes when the server does. Results are never files: pictures are
embedded in the answer. Nothing is fetched from, or told to, any other host.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from farfeel.corpora.synthetic import generate
from farfeel.recognise.options import Options
from farfeel.serve.limits import Refusal
from farfeel.serve.middleware import LOG
from farfeel.serve.pictures import bars, images, timeline_chart
from farfeel.serve.schema import MICS, shown_name
from farfeel.serve.worker import Job
from farfeel.serve.workers import Desk
from farfeel.show.drawing import STYLE as DRAWING_STYLE
from farfeel.show.drawing import colours_of
from farfeel.types import FACES, FarfeelError

if TYPE_CHECKING:
    from farfeel.serve.schema import CheckpointInfo

KEPT_S = 270.0  # an upload: with the sweep, less than the five minutes that the page promises
SWEEP_S = 20.0
FOLDER = "farfeel-page-"  # and the server's process, and something random
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
Drop in a clip, or record one, and press **Recognise**. A film alone, sound alone, or both: the sound of a film comes
from the film, unless there is a sound file, as of a microphone array. What you send is decoded on this machine, deleted
within five minutes, and goes nowhere else. Acted speech taught this model: it tells little about how a person feels.
"""


def mount_page(app: FastAPI, desk: Desk, about: CheckpointInfo) -> None:
    """Add the page at /ui. Its folder is made here, and removed when the app's lifespan ends."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    import gradio as gr

    page = _page(gr, desk, about, generate(folder / "examples", speakers=1, clips_per_emotion=1))
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    gr.mount_gradio_app(
        app,
        page,
        "/ui",
        max_file_size=desk.limits.bytes,
        theme=theme,
        css=STYLE + DRAWING_STYLE,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    kept = {path for path in folder.rglob("*") if path.is_file()}  # the examples
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        sweeper = asyncio.create_task(_sweep_for_ever(folder, kept))
        try:
            async with inner(app) as state:
                yield state
        finally:
            sweeper.cancel()
            shutil.rmtree(folder, ignore_errors=True)

    app.router.lifespan_context = lifespan


def _page(gr: Any, desk: Desk, about: CheckpointInfo, examples: Path) -> Any:
    colours = {emotion: fill for emotion, (fill, _) in colours_of(desk.recognizer.emotions).items()}
    filmed, heard = desk.recognizer.modalities != "audio", desk.recognizer.modalities != "video"
    clips = [sorted(examples.rglob(f"*-{emotion}-*.mp4"))[0] for emotion in EXAMPLES]

    async def recognise(
        film: str | None, sound: str | None, mics: str, face: str, modalities: str, offset_s: float
    ) -> tuple[str, str, str, str]:
        began = time.monotonic()
        try:
            answer = await _recognised(desk, about, [film, sound], mics, face, modalities, offset_s)
        except Refusal as refusal:
            LOG.info("page %s in %.2f s: %s", refusal.status, time.monotonic() - began, refusal.detail)
            return f'<div class="ff-problem" id="ff-problem">{html.escape(refusal.detail)}</div>', "", "", ""
        LOG.info("page 200 in %.2f s", time.monotonic() - began)
        views = answer["views"]
        return (
            bars(answer["prediction"], colours),
            images(views, "faces") if filmed else "",
            images(views, "mels") if heard else "",
            timeline_chart(answer["timeline"], list(colours)),
        )

    with gr.Blocks(title="farfeel", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                film = gr.Video(
                    label="film",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    webcam_options=gr.WebcamOptions(mirror=False),
                    height=320,
                    visible=filmed,
                    buttons=[],
                )
                sound = gr.Audio(
                    label="sound (of the film, or alone)",
                    sources=["upload", "microphone"],
                    type="filepath",
                    visible=heard,
                    buttons=[],
                )
                with gr.Accordion("options", open=False):
                    mics = gr.Textbox("", label="microphones", info="channels to use, from 0: 0,2,4; empty: all")
                    face = gr.Radio(list(FACES), value="largest", label="face", visible=filmed)
                    modalities = gr.Radio(["both", "audio", "video"], value="both", label="use", visible=filmed)
                    offset_s = gr.Number(0, label="the sound file begins after the film by (seconds)", visible=filmed)
                go = gr.Button("Recognise", variant="primary", elem_id="ff-go")
                gr.Examples(
                    [[str(clip), str(clip.with_suffix(".flac"))] for clip in clips],
                    [film, sound],
                    label="artificial people",
                    example_labels=[f"artificial, {emotion}" for emotion in EXAMPLES],
                    cache_examples=False,
                    api_visibility="private",
                )
            with gr.Column():
                answer = gr.HTML(elem_id="ff-answer")
                faces = gr.HTML(visible=filmed)
                mels = gr.HTML(visible=heard)
        line = gr.HTML()
        if about.card:
            with gr.Accordion("about the model", open=False):
                gr.Markdown(about.card)
        go.click(
            recognise,
            [film, sound, mics, face, modalities, offset_s],
            [answer, faces, mels, line],
            api_visibility="private",
            concurrency_limit=None,  # The desk counts.
            show_progress_on=answer,
        )
    return page


async def _recognised(
    desk: Desk, about: CheckpointInfo, uploads: list[str | None], mics: str, face: str, modalities: str, offset_s: float
) -> dict[str, Any]:
    paths = [Path(upload) for upload in uploads if upload]
    mics = "".join(mics.split())
    if not paths:
        raise Refusal(422, "there is no clip; drop one in, or record one")
    if mics and not re.fullmatch(MICS, mics):
        raise Refusal(422, f"the microphones are {mics!r}, expected numbers from 0 like 0,2,4")
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
        wants=("prediction", "views", "timeline"),
        limits=desk.limits,
        name=shown_name(paths[0].name),
        checkpoint=about.name,
        files=len(paths),
        options=options,
    )
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(path.open("rb")).fileno() for path in paths]
        except FileNotFoundError:
            raise Refusal(422, "the clip is no longer on the server; drop it in again") from None
        stack.enter_context(desk.place())
        return await desk.work(job, files, threading.Event())


async def _sweep_for_ever(folder: Path, kept: set[Path]) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        await asyncio.to_thread(sweep, folder, kept, KEPT_S)


def sweep(folder: Path, kept: set[Path], age_s: float) -> None:
    """Delete files that nothing has written to for age_s, but for those to keep."""
    before = time.time() - age_s
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Gradio moves files about.
            if path.is_file() and path not in kept and path.stat().st_mtime < before:
                path.unlink()


def _remove_leftovers() -> None:
    """Folders of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*-*"):
        owner = folder.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
