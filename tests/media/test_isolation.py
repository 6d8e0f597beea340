"""Laws of decoding in a process of its own: the results are the same, and a crash costs one error."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crashing import decode, decode_blocks, exhaust
from farfeel.corpora.video_files import write_video
from farfeel.media.audio import audio_blocks, audio_info, read_audio
from farfeel.media.isolation import isolated_decoding
from farfeel.media.video import media_info, read_frames
from farfeel.types import FarfeelError

FILE = Path("talk.mp4")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (48000, 2))
    soundfile.write(tmp_path / "clip.mp3", noise, 16000)
    pictures = np.stack([np.full((48, 64, 3), 8 * i, np.uint8) for i in range(20)])
    write_video(tmp_path / "video.mp4", pictures, fps=10)
    return tmp_path / "clip.mp3", tmp_path / "video.mp4"


def test_another_process_decodes_and_ends_afterwards() -> None:
    assert decode(FILE) == os.getpid()
    with isolated_decoding():
        process = decode(FILE)
        assert process != os.getpid()
        assert decode(FILE) == process
    assert not is_running(process)
    assert decode(FILE) == os.getpid()


def test_the_results_are_the_same(clips: tuple[Path, Path]) -> None:
    clip, video = clips
    plain = read_audio(clip, 8000), np.concatenate(list(audio_blocks(clip)), axis=1), read_frames(video, [0.0, 1.0])
    with isolated_decoding(early=True):
        np.testing.assert_array_equal(read_audio(clip, 8000), plain[0])
        np.testing.assert_array_equal(np.concatenate(list(audio_blocks(clip)), axis=1), plain[1])
        np.testing.assert_array_equal(read_frames(video, [0.0, 1.0]).pixels, plain[2].pixels)
        found = audio_info(clip), media_info(clip), media_info(video)
    assert found == (audio_info(clip), media_info(clip), media_info(video))


def test_errors_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(FarfeelError) as plain:
        media_info(path)
    with isolated_decoding(), pytest.raises(FarfeelError) as isolated:
        media_info(path)
    assert str(isolated.value) == str(plain.value)


def test_a_lack_of_memory_is_one_line() -> None:
    with isolated_decoding(), pytest.raises(FarfeelError, match=r"^talk.mp4 needs more memory than there is"):
        exhaust(FILE)


@pytest.mark.parametrize("reason", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_one_line_and_the_next_file_is_decoded(clips: tuple[Path, Path], reason: int) -> None:
    with isolated_decoding():
        with pytest.raises(
            FarfeelError, match=r"^talk.mp4 crashed the decoder, expected a recording; convert the file$"
        ):
            decode(FILE, reason)
        assert audio_info(clips[0]).channels == 2
        with pytest.raises(FarfeelError, match="crashed the decoder"):
            list(decode_blocks(FILE, 100, reason))
        assert audio_info(clips[0]).channels == 2


def test_blocks_of_several_files_and_frames_are_read_by_turns() -> None:
    with isolated_decoding():
        first, second = decode_blocks(FILE, 100), decode_blocks(FILE, 50)
        taken = []
        for _ in range(50):
            taken.append((next(first), next(second)))
            assert decode(FILE) != os.getpid()
        assert taken == [(i, i) for i in range(50)]
        second.close()
        assert list(first) == list(range(50, 100))


def test_a_crash_ends_all_files_that_were_open(clips: tuple[Path, Path]) -> None:
    with isolated_decoding():
        first = decode_blocks(FILE, 100)
        assert next(first) == 0
        with pytest.raises(FarfeelError, match="crashed the decoder"):
            decode(FILE, signal.SIGSEGV)
        second = decode_blocks(FILE, 100)
        assert next(second) == 0
        with pytest.raises(FarfeelError, match="crashed the decoder"):
            list(first)
        assert list(second) == list(range(1, 100))


def test_the_decoder_ends_when_its_parent_is_killed() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:  # pragma: no cover
        with isolated_decoding():
            os.write(writing, str(decode(FILE)).encode())
            time.sleep(60)
        os._exit(0)
    process = int(os.read(reading, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for descriptor in (reading, writing):
        os.close(descriptor)
    deadline = time.monotonic() + 20
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(process) or Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
