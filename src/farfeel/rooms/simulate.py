"""Simulated shoebox rooms: draw a room, compute its responses, and fill a bank with them in several processes.

The first 80 ms are image sources (Allen & Berkley, 1979; pyroomacoustics), complete up to that time: direct sound and
early reflections are exact. Later, an image-source response is dense. The ear and a mel spectrogram then notice only
how it decays and how similar it is at two microphones. So the rest is drawn as a diffuse field. It continues the early
part at its level and decays with the requested T60 (Lehmann & Johansson, 2010, IEEE TASLP 18(6)). Its coherence between
microphones at distance d is sin(kd)/kd (Cook et al., 1955; Habets & Gannot, 2007).

Other methods were slower or less accurate, measured on one core for 3 microphones at 16 kHz:

    images to -60 dB at a T60 of 0.3 s   0.3 s, grows with the third power of T60
    images of order 6, 5000 rays         0.2 to 0.7 s; T60 10 % too short to 40 % too long: no diffuse field
    images and a diffuse field           0.05 s; T60 within 6 % in eight of ten rooms
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyroomacoustics as pra

from farfeel.recipe import Simulation
from farfeel.rooms import gpurir
from farfeel.rooms.acoustics import measure
from farfeel.rooms.bank import PARAMETERS, Bank, check_replaceable, is_bank, write_bank
from farfeel.support.files import replacing_file
from farfeel.support.parameters import read_parameters, require_same
from farfeel.support.pool import Runner, run_all
from farfeel.support.reading import damage
from farfeel.types import FarfeelError, Rir, Room

SPEED_OF_SOUND = 343.0  # m/s, dry air at 20 °C.
SABINE = 24 * np.log(10) / SPEED_OF_SOUND  # T60 = SABINE · V / (absorption · S); 0.161 s/m.
MIXING_S = 0.08  # Rooms of the size of offices mix within 20·V/S + 12 ms (Lindau et al., 2012): at most 32 ms here.
FADE_S = 0.02
LEVEL_S = 0.03  # The diffuse field starts at the level of the images in this time before MIXING_S.
LENGTH_T60 = 0.9  # Responses last for this share of the longest T60: to -54 dB, below the noise of recordings.
NEAREST_M = 0.2  # the least distance of a microphone from the mouth
ROOM_DRAWS, POSITION_DRAWS = 200, 256
# Last numbers in the seeds of the diffuse field and of the walls. Seeds of rooms and positions end in zeros, as all do.
NOISE, WALLS = 1, 2
OCTAVES_HZ = 125.0 * 2.0 ** np.arange(7)
PYROOMACOUSTICS, GPURIR = "pyroomacoustics", "gpurir"
DIRECT_S = 0.0025  # on each side of its arrival: the direct sound, as in a DRR


def draw_room(ranges: Simulation, mics: int, rng: np.random.Generator) -> Room:
    """A room, a source and an array of `mics` microphones, uniform within `ranges`, by rejection.

    Linear and circular arrays are level and turned by a random angle. A T60 that is too short for the room by Sabine's
    formula (the walls would absorb more than 100 %) is drawn again. Raises FarfeelError where the ranges cannot be met.
    """
    problem = "no room absorbs enough for t60_s"
    for _ in range(ROOM_DRAWS):
        size = np.array([rng.uniform(*side) for side in (ranges.width_m, ranges.length_m, ranges.height_m)])
        shortest_s = SABINE * np.prod(size) / _surface(size)
        if shortest_s >= ranges.t60_s[1]:
            continue
        t60_s = rng.uniform(max(shortest_s, ranges.t60_s[0]), ranges.t60_s[1])
        array = _draw_array(ranges, mics, rng)
        sources, centres = _draw_positions(ranges, size, rng)
        fits = _fits(sources[:, None], array + centres[:, None], size, ranges.wall_margin_m)
        if fits.any():
            position = int(fits.argmax())
            return _room(size, sources[position], array + centres[position], t60_s)
        problem = "no room has space for distance_m, array_radius_m, source_height_m and wall_margin_m together"
    raise FarfeelError(f"{problem} in {ROOM_DRAWS} draws; widen these ranges of simulation or the room's")


def simulate_rir(room: Room, sample_rate: int, rng: np.random.Generator, length: int | None = None) -> Rir:
    """A room → its response of `length` taps (by default 0.9 T60), with the absolute delay of propagation.

    Tap t is t / sample_rate seconds after the source sounds. The taps scale as 1/distance in metres. t60_s and drr_db
    are measured on them.
    """
    length = length or response_length(room.t60_s, sample_rate)
    return _measured(_shoebox(room, sample_rate, rng, length), room, sample_rate)


def _shoebox(room: Room, sample_rate: int, rng: np.random.Generator, length: int) -> np.ndarray:
    """(M, L) float32 of exact early images and a diffuse tail."""
    time_s = np.arange(length) / sample_rate
    early = _image_sources(room, sample_rate, length)
    late = _diffuse_noise(room, sample_rate, length, rng) * 10 ** (-3 * time_s / room.t60_s)
    before = (time_s >= MIXING_S - LEVEL_S) & (time_s < MIXING_S)
    late *= np.sqrt(np.square(early[:, before]).sum() / np.square(late[:, before]).sum())
    angle = np.pi / 2 * np.clip((time_s - MIXING_S) / FADE_S, 0, 1)  # They are uncorrelated: their powers add.
    return np.asarray(early * np.cos(angle) + late * np.sin(angle), dtype=np.float32)


def _measured(taps: np.ndarray, room: Room, sample_rate: int) -> Rir:
    rir = Rir(taps, sample_rate, room="simulated", origin="simulated", geometry=room)
    acoustics = measure(rir)
    return replace(rir, t60_s=acoustics.t60_s, drr_db=acoustics.drr_db)


def furnished_rir(
    room: Room,
    ranges: Simulation,
    length: int,
    walls: np.random.Generator,
    field: np.random.Generator,
    backend: str = PYROOMACOUSTICS,
) -> Rir:
    """`simulate_rir` with a T60 that depends on frequency, and a talker who faces the microphones.

    A shoebox with one absorption and a source without direction have neither. Both are drawn from `ranges` by `walls`.
    The T60 of an octave is the room's T60 times a factor. Over log-frequency, the factor is t60_low at 125 Hz, 1 at 1
    kHz and t60_high at 8 kHz. length: in taps. field: draws the diffuse field. backend: pyroomacoustics or gpurir.
    """
    low, high = walls.uniform(*ranges.t60_low), walls.uniform(*ranges.t60_high)
    facing_db = walls.uniform(*ranges.facing_db)
    t60_s = room.t60_s * np.interp(np.arange(len(OCTAVES_HZ)), (0, 3, 6), (low, 1.0, high))
    shoebox = gpurir.shoebox if backend == GPURIR else _shoebox
    taps = shoebox(replace(room, t60_s=float(t60_s.max())), ranges.sample_rate, field, length)
    if np.ptp(t60_s) == 0 and not facing_db:
        return _measured(taps, room, ranges.sample_rate)
    # Octaves only become quieter: otherwise the ringing of their filters would be louder at the end than the response.
    taps = _decaying(taps.astype(np.float64), ranges.sample_rate, t60_s, t60_s.max())
    distance_m = np.linalg.norm(np.array(room.mics_m) - np.array(room.source_m), axis=1)
    for response, direct_s in zip(taps, distance_m / SPEED_OF_SOUND, strict=True):
        first, last = (round((direct_s + side * DIRECT_S) * ranges.sample_rate) for side in (-1, 1))
        response[max(0, first) : last] *= 10 ** (facing_db / 20)
    return _measured(taps.astype(np.float32), room, ranges.sample_rate)


def _decaying(taps: np.ndarray, sample_rate: int, t60_s: np.ndarray, from_t60_s: float) -> np.ndarray:
    """(M, L) with the decay from_t60_s → (M, L) whose octaves have the decays t60_s (7,)."""
    length = taps.shape[1]
    time_s = np.arange(length) / sample_rate
    frequency_hz = np.clip(np.fft.rfftfreq(length, 1 / sample_rate), OCTAVES_HZ[0], OCTAVES_HZ[-1])
    spectrum, decayed = np.fft.rfft(taps), np.zeros_like(taps)
    for centre_hz, band_t60_s in zip(OCTAVES_HZ, t60_s, strict=True):
        share = np.clip(1 - np.abs(np.log2(frequency_hz / centre_hz)), 0, 1)
        decayed += np.fft.irfft(spectrum * share, length) * 10 ** (-3 * time_s * (1 / band_t60_s - 1 / from_t60_s))
    return decayed


def simulate(
    count: int,
    mics: int,
    ranges: Simulation,
    seed: int,
    out: Path,
    workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    run: Runner = run_all,
    backend: str = PYROOMACOUSTICS,
) -> Bank:
    """Fill the bank `out` with `count` responses at `mics` microphones in rooms sim_0000, sim_0001, …

    Response i depends on (seed, i) alone. Finished responses are kept in `.NAME.partial` beside `out`. After a crash,
    the same call resumes there. The bank has the same bytes after any interruption and with any number of workers. A
    bank with the same parameters is returned as it is.

    workers: processes; with more than 1, call from under `if __name__ == "__main__"`. on_progress: called with the
    number of responses done and of all responses. run: what runs the work; Ray has its own. backend: pyroomacoustics,
    or gpurir (see farfeel.rooms.gpurir; its bytes differ each time). Raises FarfeelError where the ranges cannot be
    met, or where `out` or its partial folder has other parameters or other files.
    """
    out = Path(out)
    parameters: dict[str, Any] = {"mics": mics, "seed": seed, "ranges": ranges.model_dump(mode="json")}
    if backend == GPURIR:
        gpurir.require_engine()
        parameters["backend"] = backend
    waiting = out.with_name(f".{out.name}.partial")
    check_replaceable(out)
    if is_bank(out):
        require_same(
            read_parameters(out / PARAMETERS),
            {"count": count, **parameters},
            f"{out} is a bank with other parameters",
            "choose another --out or remove it",
        )
        shutil.rmtree(waiting, ignore_errors=True)  # where the last run was killed in its last step
        return Bank.open(out)
    room_of(0, ranges, mics, seed)  # Ranges that cannot be met are an error before anything is written.
    _start_or_resume(waiting, parameters)
    done = {path.name for path in waiting.iterdir()}
    todo = [index for index in range(count) if _file(index) not in done]
    work = partial(_simulate_one, ranges=ranges, mics=mics, seed=seed, waiting=waiting, backend=backend)
    for finished, _ in enumerate(run(work, todo, workers), start=count - len(todo) + 1):
        if on_progress:
            on_progress(finished, count)
    shape = (count, mics, longest_response(ranges))
    finished_rirs = (_read(waiting / _file(index), index, ranges, mics, seed) for index in range(count))
    bank = write_bank(out, finished_rirs, shape, {"count": count, **parameters})
    shutil.rmtree(waiting)
    return bank


def response_length(t60_s: float, sample_rate: int) -> int:
    """Taps of a response with the longest T60 t60_s; never fewer than the early part has."""
    return round(max(LENGTH_T60 * t60_s, MIXING_S + 2 * FADE_S) * sample_rate)


def longest_response(ranges: Simulation) -> int:
    """Taps of the responses of a bank."""
    return response_length(ranges.t60_s[1] * max(1.0, ranges.t60_low[1], ranges.t60_high[1]), ranges.sample_rate)


def room_of(index: int, ranges: Simulation, mics: int, seed: int) -> Room:
    """The room of response `index`. Responses in one room differ in the position of the source alone."""
    number, position = divmod(index, ranges.sources_per_room)
    room = draw_room(ranges, mics, np.random.default_rng((seed, number)))
    if position == 0:
        return room
    size, array = np.array(room.size_m), np.array(room.mics_m)
    rng = np.random.default_rng((seed, number, position))
    for _ in range(ROOM_DRAWS):
        sources, _ = _draw_positions(ranges, size, rng)
        distance_m = np.linalg.norm(sources - array.mean(axis=0), axis=1)
        within = (distance_m >= ranges.distance_m[0]) & (distance_m <= ranges.distance_m[1])
        fits = within & _fits(sources[:, None], array[None], size, ranges.wall_margin_m)
        if fits.any():
            return _room(size, sources[fits.argmax()], array, room.t60_s)
    raise FarfeelError(f"no position for another source was found in {ROOM_DRAWS} draws; widen simulation.distance_m")


def _draw_array(ranges: Simulation, mics: int, rng: np.random.Generator) -> np.ndarray:
    """(M, 3) metres about the array's centre."""
    radius_m, turn = rng.uniform(*ranges.array_radius_m), rng.uniform(0, 2 * np.pi)
    if ranges.array == "free":
        direction = rng.standard_normal((mics, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return np.asarray(radius_m * rng.uniform(size=(mics, 1)) ** (1 / 3) * direction)  # uniform in the ball
    if ranges.array == "linear":
        along = np.linspace(-radius_m, radius_m, mics) if mics > 1 else np.zeros(1)
        return np.outer(along, (np.cos(turn), np.sin(turn), 0))
    angle = turn + 2 * np.pi * np.arange(mics) / mics
    return radius_m * np.stack([np.cos(angle), np.sin(angle), np.zeros(mics)], axis=1)


def _draw_positions(ranges: Simulation, size: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A size (3,) → candidates for sources and array centres (POSITION_DRAWS, 3), at one distance in any direction."""
    sources = rng.uniform(size=(POSITION_DRAWS, 3)) * size
    sources[:, 2] = rng.uniform(*ranges.source_height_m, size=POSITION_DRAWS)
    direction = rng.standard_normal((POSITION_DRAWS, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return sources, sources + rng.uniform(*ranges.distance_m) * direction


def _fits(sources: np.ndarray, mics: np.ndarray, size: np.ndarray, margin_m: float) -> np.ndarray:
    """sources (C, 1, 3), microphones (C or 1, M, 3) → (C,) bool: which candidates keep the least distances."""
    inside = [((p >= margin_m) & (p <= size - margin_m)).all(axis=(1, 2)) for p in (sources, mics)]
    apart = (np.linalg.norm(sources - mics, axis=2) >= NEAREST_M).all(axis=1)
    return np.asarray(inside[0] & inside[1] & apart)


def _room(size: np.ndarray, source: np.ndarray, mics: np.ndarray, t60_s: float) -> Room:
    width, length, height = size.tolist()
    x, y, z = source.tolist()
    return Room((width, length, height), (x, y, z), tuple((a, b, c) for a, b, c in mics.tolist()), float(t60_s))


def _surface(size: np.ndarray) -> float:
    return float(2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2]))


def _image_sources(room: Room, sample_rate: int, length: int) -> np.ndarray:
    """(M, L) float64 of all images that arrive before MIXING_S + FADE_S, and of some later ones."""
    size = np.array(room.size_m)
    absorption = min(1.0, SABINE * float(np.prod(size)) / (_surface(size) * room.t60_s))
    # A ray of length r crosses at most r·√Σ(1/side²) walls (Cauchy-Schwarz), and three more for where it starts.
    order = int(np.ceil(SPEED_OF_SOUND * (MIXING_S + FADE_S) * np.sqrt(np.sum(1 / size**2)))) + 3
    pra.constants.set("num_threads", 1)  # Sums over threads would have other last bits on another number of cores.
    shoebox = pra.ShoeBox(size, fs=sample_rate, materials=pra.Material(absorption), max_order=order)
    shoebox.add_source(list(room.source_m))
    shoebox.add_microphone_array(np.array(room.mics_m).T)
    shoebox.compute_rir()
    filter_delay = pra.constants.get("frac_delay_length") // 2
    taps = np.zeros((len(room.mics_m), length))
    for mic, (response,) in enumerate(shoebox.rir):
        arrived = response[filter_delay : filter_delay + length]
        taps[mic, : len(arrived)] = arrived
    return taps


def _diffuse_noise(room: Room, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(M, L) stationary noise with the spatial coherence of a spherically isotropic field."""
    mics = np.array(room.mics_m)
    distance_m = np.linalg.norm(mics[:, None] - mics[None], axis=-1)
    frequency_hz = np.fft.rfftfreq(length, 1 / sample_rate)
    coherence = np.sinc(2 * frequency_hz[:, None, None] * distance_m / SPEED_OF_SOUND)
    mixing = np.linalg.cholesky(coherence + 1e-6 * np.eye(len(mics)))  # At 0 Hz all microphones record the same.
    spectrum = np.fft.rfft(rng.standard_normal((len(mics), length)))
    return np.fft.irfft(np.einsum("fij,jf->if", mixing, spectrum), length)


def _simulate_one(index: int, ranges: Simulation, mics: int, seed: int, waiting: Path, backend: str) -> None:
    number, position = divmod(index, ranges.sources_per_room)
    rir = furnished_rir(
        room_of(index, ranges, mics, seed),
        ranges,
        longest_response(ranges),
        walls=np.random.default_rng((seed, number, WALLS)),
        field=np.random.default_rng((seed, number, position, NOISE)),
        backend=backend,
    )
    with replacing_file(waiting / _file(index)) as path, path.open("wb") as file:
        np.savez(file, taps=rir.taps, t60_s=rir.t60_s, drr_db=rir.drr_db)


def _read(path: Path, index: int, ranges: Simulation, mics: int, seed: int) -> Rir:
    number, position = divmod(index, ranges.sources_per_room)
    message = f"{path} is damaged, expected a response of an interrupted simulation"
    with damage(lambda reason: f"{message} ({reason}); delete it and run the same command again"):
        with np.load(path, allow_pickle=False) as kept:
            taps, t60_s, drr_db = np.asarray(kept["taps"], np.float32), float(kept["t60_s"]), float(kept["drr_db"])
        if taps.ndim != 2 or len(taps) != mics or not np.isfinite(taps).all():
            raise ValueError(f"shape {taps.shape}, or a number that is not finite")
    return Rir(
        taps=taps,
        sample_rate=ranges.sample_rate,
        room=f"sim_{number:04d}",
        position=str(position),
        t60_s=t60_s,
        drr_db=drr_db,
        origin="simulated",
        geometry=room_of(index, ranges, mics, seed),
    )


def _file(index: int) -> str:
    return f"{index:06d}.npz"


def _start_or_resume(waiting: Path, parameters: dict[str, Any]) -> None:
    if not (waiting / PARAMETERS).exists():
        shutil.rmtree(waiting, ignore_errors=True)  # Responses of unknown parameters must not be used.
        with replacing_file(waiting / PARAMETERS) as path:
            path.write_text(json.dumps(parameters, indent=1), encoding="utf-8")
    else:
        require_same(
            read_parameters(waiting / PARAMETERS),
            parameters,
            f"{waiting} keeps an interrupted simulation with other parameters",
            "repeat that command, choose another --out, or remove the folder",
        )
    for path in waiting.glob(".*.partial"):  # what a killed process was writing
        path.unlink(missing_ok=True)
