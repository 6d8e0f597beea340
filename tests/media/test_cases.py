"""Recordings that people met: each is read as it is known to be. Skipped where they are not present."""

import os
from pathlib import Path

import numpy as np
import pytest

from farfeel.media.audio import audio_blocks, audio_info, read_audio, unused_audio
from farfeel.media.video import media_info, read_frames
from farfeel.types import FarfeelError

CASES = Path(os.environ.get("FARFEEL_CASES", "../shared/cases")).resolve()
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no recordings of this kind here")
RATE = 16000
AUDIO = {  # seconds and channels
    "a1_adts_silence_first.aac": (10.18, 1),
    "a2_vbr_no_xing.mp3": (4.2, 1),
    "b1_chained.ogg": (7.4, 1),
    "b4_wav_data_size_0.wav": (4.1, 1),
    "c1_8mics_aac.m4a": (2.5, 8),
    "c6_wav_called.raw": (4.1, 1),
    "e_film_2s_late.mp4": (3.95, 1),
    "e_film_2s_late.mkv": (3.97, 1),
    "k1_epoch_times.mkv": (3.97, 1),
    "n1_four_mono_tracks.mov": (2.0, 4),
    "q1.gsm": (4.12, 1),
    "q2.sph": (4.1, 1),
    "q3.voc": (4.11, 1),
    "q6.nut": (4.15, 1),
    "q7.rm": (4.14, 1),
    "r1_xing_claims_21475_h.mp3": (1.23, 1),
    "r2_piped.flac": (3.4, 1),
    "p01_bw64.wav": (4.1, 1),
    "p02_rf64.wav": (4.1, 1),
    "p03_browser_no_duration.webm": (4.1, 1),
    "p04_float_int16_scale.wav": (4.1, 1),
    "p06_ms_adpcm.wav": (4.2, 1),
    "p07_mulaw.wav": (4.1, 1),
    "p09_extensible_wrong_mask.wav": (1.56, 4),
    "p14_pts_wrap.ts": (3.97, 1),
    "p16_cover_art.m4a": (4.1, 1),
    "p18_pipe_header.wav": (4.1, 1),
    "p21_voice_note.oga": (4.1, 1),
    "p22_ip_camera_alaw.mkv": (4.1, 1),
    "speech.wav": (4.1, 1),
}
ONE_LINE = ["c4_mono_then_stereo.aac", "c5_headerless.raw", "q8.pcm"]
VIDEO = ["j1_pi_camera.h264", "q5.y4m", "i0_photo.jpg", "i1_phone_photo_exif.jpg", "k1_epoch_times.mkv"]


@pytest.mark.parametrize("name", AUDIO)
def test_all_of_the_audio_is_read(name: str) -> None:
    seconds, channels = AUDIO[name]
    samples, info = read_audio(CASES / name, RATE), audio_info(CASES / name)
    assert (len(samples), info.channels) == (channels, channels)
    assert samples.shape[1] / RATE == pytest.approx(seconds, abs=0.05)
    assert info.seconds == pytest.approx(samples.shape[1] / RATE, abs=0.001)
    assert sum(block.shape[1] for block in audio_blocks(CASES / name)) == round(info.seconds * info.sample_rate)
    assert unused_audio(CASES / name) == ""


@pytest.mark.parametrize("name", ONE_LINE)
def test_what_cannot_be_read_is_one_line(name: str) -> None:
    with pytest.raises(FarfeelError) as raised:
        read_audio(CASES / name, RATE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", VIDEO)
def test_the_pictures_are_read(name: str) -> None:
    info = media_info(CASES / name).video
    assert info is not None
    assert read_frames(CASES / name, [0.0, 0.1, 1.0]).pixels.shape == (3, info.height, info.width, 3)


def test_a_photo_of_a_telephone_is_the_photo() -> None:
    photo, telephone = (read_frames(CASES / name, [0.0]).pixels for name in ("i0_photo.jpg", "i1_phone_photo_exif.jpg"))
    assert photo.shape == telephone.shape
    assert np.abs(photo.astype(float) - telephone.astype(float)).mean() < 4


@pytest.mark.parametrize("path", sorted((CASES / "fuzz").glob("*")), ids=lambda path: path.name)
def test_damage_is_one_line(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reads = (audio_info, media_info, lambda path: read_audio(path, RATE), lambda path: read_frames(path, [0.0, 1.0]))
    for read in (*reads, lambda path: list(audio_blocks(path))):
        try:
            read(path)
        except FarfeelError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert capfd.readouterr() == ("", "")
