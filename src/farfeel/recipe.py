"""Every knob of an experiment, typed and documented, and its YAML form.

A recipe is a tree of frozen sections. `load_recipe("tiny")` reads one that ships with farfeel, `load_recipe("my.yaml")`
one of the user's; a file need only name what differs from the defaults below. `section.key=value` overrides follow.
An unknown key is an error that names the nearest known one: a mistyped knob must never be silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from farfeel.support.files import replacing_file
from farfeel.support.registry import nearest
from farfeel.support.text import one_line
from farfeel.types import EMOTIONS, FarfeelError
from farfeel.variants import NOISES

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
SampleRate = Annotated[int, Field(ge=8000, le=192000)]
Stages = Annotated[tuple[Count, ...], Field(min_length=1)]
Range = tuple[float, float]
Span = tuple[NotNegative, NotNegative]  # a range of lengths or times
RANGES = (Range, Range | None, Span)


def _kind_of_noise(name: str) -> str:
    if name not in NOISES:
        *first, last = map(repr, NOISES)
        raise PydanticCustomError("kind_of_noise", "{kinds}", {"kinds": f"{', '.join(first)} or {last}"})
    return name


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Section:
        for name, value in self:
            if type(self).model_fields[name].annotation in RANGES and value and value[0] > value[1]:
                raise ValueError(f"{name} is {list(value)}, expected a range with its lower end first; exchange them")
        return self


class Data(Section):
    """Which clips, and how they are divided."""

    emotions: tuple[str, ...] = EMOTIONS
    """Classes, in the order of the model's outputs. Clips of other emotions are left out."""
    merge: dict[str, str] = {}
    """Emotions that are no class and count as one, e.g. {calm: neutral}."""
    excited: bool = True
    """IEMOCAP's excited clips count as happy, as in most results on it; false: they are left out."""
    labels: Literal["intended", "perceived"] = "intended"
    """intended: what was acted. perceived: what most listeners and viewers voted for, where a corpus tells (CREMA-D);
    clips whose votes are tied are left out."""
    agreement: Share = 0.0
    """Share of the votes that a perceived label needs; clips with less are left out."""
    weights: dict[str, Positive] = {}
    """Corpus → how often an epoch draws a clip of it, relative to clips of the others; 1 where none is given. Epochs
    stay as long as there are clips."""
    split: str = "paper"
    """Speaker-independent split: paper, or folds-6:K, folds-5:K, folds-7:K with K the test fold from 1."""

    learn_validation: bool = False
    """Train on the validation speakers as well, for the final model: the last epoch is the result, and nothing is
    calibrated. What validation then tells is about rooms alone."""

    @model_validator(mode="after")
    def _known_emotions(self) -> Data:
        unknown = sorted(set(self.emotions) - set(EMOTIONS))
        if unknown or len(self.emotions) < 2 or len(set(self.emotions)) < len(self.emotions):
            raise ValueError(
                f"emotions are {', '.join(self.emotions) or 'none'}, expected two or more different ones of "
                f"{', '.join(EMOTIONS)}; correct them"
            )
        others = [emotion for emotion in EMOTIONS if emotion not in self.emotions]
        for emotion, counts_as in self.merge.items():
            if emotion not in others or counts_as not in self.emotions:
                raise ValueError(
                    f"merge counts {emotion} as {counts_as}, expected what is no class ({', '.join(others) or 'none'}) "
                    f"as one that is ({', '.join(self.emotions)}); correct merge or emotions"
                )
        return self


class Audio(Section):
    """From the file to the log-mel spectrogram."""

    sample_rate: SampleRate = 16000
    """Hz. Files and responses at other rates are resampled."""
    seconds: Annotated[float, Field(gt=0, le=10.24)] = 4.0
    """Length of the window that the model sees. Longer clips are cut (centre in testing, anywhere in training)."""
    trim_silence: bool = False
    """Cut leading and trailing silence (40 dB below the loudest frame) off dry training and test clips and off
    recordings to be recognised."""
    normalise_level: bool = False
    """Scale each microphone of a recording to -26 dB RMS."""
    range_db: Positive | None = None
    """Log-mels keep this range below the loudest of each microphone; what is below is lifted to it. null: all."""
    mean_norm: Share = 0.0
    """Share of each band's mean over the speech that is taken off the log-mels of each microphone: the colour of the
    voice, the room and the microphone. 1: cepstral mean normalisation."""
    n_fft: Count = 1024
    """Samples in one Fourier frame."""
    hop: Count = 160
    """Samples between frames."""
    mel_bands: Count = 64
    fmin_hz: NotNegative = 50.0
    fmax_hz: Positive = 8000.0
    """Upper edge of the filters. The reference uses 14000 at 16 kHz: nine filters are empty."""

    @property
    def window_samples(self) -> int:
        """Samples in the window that the model hears."""
        return round(self.seconds * self.sample_rate)

    @model_validator(mode="after")
    def _heard(self) -> Audio:
        highest_hz = min(self.fmax_hz, self.sample_rate / 2)
        if self.fmin_hz >= highest_hz:
            raise ValueError(f"fmin_hz is {self.fmin_hz:g}, expected less than {highest_hz:g} Hz; lower it")
        if self.n_fft > self.seconds * self.sample_rate:
            raise ValueError(f"n_fft is {self.n_fft}, the window has {self.seconds * self.sample_rate:.0f}; lower it")
        return self


class Microphones(Section):
    """How many microphones, and how they are fused."""

    strategy: Literal["single", "average-mels", "sum-patches", "normalised-sum"] = "average-mels"
    count: Count = 1
    """Microphones drawn for each training clip from those of the response."""
    front_end: Literal["none", "mvdr", "wpe"] = "none"
    """What the microphones pass wherever something is recognised, before the network hears them. mvdr: a blind
    beamformer takes noise and other talkers away. wpe: the room's late sound is taken away. Training goes without."""


class Rooms(Section):
    """What happens to a dry training clip on its way to the microphones."""

    dry: Share = 0.0
    """Share of training clips that no room touches (only the microphone count is kept)."""
    snr_db: Range | None = None
    """Noise is added at a level drawn from this range, measured over all microphones; none without it."""
    noise: Annotated[tuple[Annotated[str, AfterValidator(_kind_of_noise)], ...], Field(min_length=1)] = ("white",)
    """Kinds of noise to draw from. A kind that the clips do not allow is left out where another kind is named: prepared
    clips have no positions for babble and fan, and a single speaker has nobody for babble."""
    renderings: Annotated[int, Field(ge=0)] = 0
    """Versions of each training clip (room, noise, speed, place in the window) that are computed once and taken in
    turn, as log-mels in memory; 0: a new one in every epoch. For audio recipes."""
    noise_folder: str | None = None
    """Recorded noise: audio files, used as they are where they have enough channels."""


class Simulation(Section):
    """What `rooms simulate` draws; all ranges are uniform."""

    width_m: Span = (3.0, 8.0)
    length_m: Span = (3.0, 10.0)
    height_m: Span = (2.4, 3.6)
    t60_s: Span = (0.2, 1.3)
    """Reverberation time. The paper: 0.5 to 0.85."""
    t60_low: Span = (1.0, 1.0)
    """T60 at 125 Hz, as a multiple of t60_s, which holds at 1 kHz."""
    t60_high: Span = (1.0, 1.0)
    """T60 at 8 kHz, likewise: air and soft furniture swallow treble. Measured rooms have 0.4 to 0.9."""
    facing_db: Span = (0.0, 0.0)
    """Direct sound above that of a source which radiates alike in all directions: a talker faces the microphones."""
    array: Literal["free", "linear", "circular"] = "free"
    """free: every microphone anywhere within a ball of the radius below; linear and circular: equally spaced."""
    array_radius_m: Span = (0.05, 0.5)
    distance_m: Span = (0.5, 4.0)
    """From the source to the centre of the array."""
    source_height_m: Span = (1.0, 1.8)
    wall_margin_m: Positive = 0.3
    """No source and no microphone nearer to a wall than this."""
    sources_per_room: Count = 1
    """Places of the source in each room, the array staying where it is. Babble needs two or more to come from
    elsewhere."""
    sample_rate: SampleRate = 16000


class Model(Section):
    """The network that hears. The defaults are the reference's HTS-AT: a Swin transformer on a 256 x 256 image."""

    network: Literal["htsat", "residual"] = "htsat"
    """htsat: what follows below. residual: convolutions alone, of the next two and dropout."""
    widths: Annotated[tuple[Count, ...], Field(min_length=2, max_length=5)] = (16, 32, 64, 128, 128)
    """Channels of the residual network's stem and of its blocks."""
    frequency_norm: NotNegative | tuple[NotNegative, ...] = 0.0
    """Between the residual network's blocks each frequency is brought to mean 0 and deviation 1 over the recording, and
    this share of what it was is added again. 0: not done. Members that differ in it have each their own."""
    members: Count = 1
    """Networks that judge side by side; their mean probability counts. farfeel merge makes one of several."""
    stem: Literal["patch", "conv"] = "patch"
    """patch: one strided convolution (the reference). conv: a small residual CNN, which learns from little data."""
    stem_width: Count = 32
    """Channels of the conv stem's first block."""
    image_frames: Count = 1024
    """The spectrogram is resized (bicubic) to this many frames; must be divisible by chunks."""
    chunks: Count = 4
    """Pieces of the time axis that are stacked on the frequency axis to make the image square."""
    patch: Literal[2, 4, 8, 16] = 4
    """Mel bands and frames that become one token; the stem reduces both axes by it."""
    embed_dim: Count = 96
    depths: Stages = (2, 2, 6, 2)
    heads: Stages = (4, 8, 16, 32)
    window: Count = 8
    dropout: Share = 0.0
    """Of the embedding, before the head."""
    drop_path: Share = 0.1
    pooling: Literal["mean", "attention"] = "mean"
    """How the time tokens of the token-semantic map become one vector of logits."""

    @property
    def frequency_norms(self) -> tuple[float, ...]:
        """Of each member."""
        shares = self.frequency_norm
        return shares if isinstance(shares, tuple) else (shares,) * self.members

    @model_validator(mode="after")
    def _divisible(self) -> Model:
        if len(self.frequency_norms) != self.members:
            raise ValueError(
                f"frequency_norm has {len(self.frequency_norms)} numbers, expected one or as many as members "
                f"({self.members})"
            )
        if self.image_frames % self.chunks:
            raise ValueError(f"image_frames are {self.image_frames}, expected a multiple of chunks ({self.chunks})")
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"depths are {list(self.depths)} and heads {list(self.heads)}, expected one number per stage in both"
            )
        widths = [self.embed_dim * 2**stage for stage in range(len(self.heads))]
        if any(heads > width for heads, width in zip(self.heads, widths, strict=True)):
            raise ValueError(f"heads are {list(self.heads)}, expected at most the widths of the stages, {widths}")
        return self


class Video(Section):
    """From the film to the face's frames, and the shape of R(2+1)D."""

    frames: Count = 8
    """Frames of the face, evenly over the window that the microphones are heard in."""
    size: Annotated[int, Field(ge=16, le=1024)] = 112
    """Pixels of a side that every frame is fitted to."""
    train_size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Training sees a square of this side, cut out anywhere; null: the whole frame."""
    crop: Literal["face", "none"] = "face"
    """face: one steady square around the face. none: the whole picture, as the reference has it."""
    margin: NotNegative = 0.25
    """Room around the detected face on each side, as a share of its width."""
    network: Literal["r2plus1d_18", "compact"] = "r2plus1d_18"
    """r2plus1d_18: torchvision's, for Kinetics weights. compact: the same blocks, fewer and narrower."""
    width: Count = 16
    """Channels of the compact network's first stage; each following stage has twice as many."""
    blocks: Stages = (1, 1, 1, 1)
    """Blocks of the compact network's stages."""
    dropout: Share = 0.0
    """Of the pooled features, before the embedding."""


class Fusion(Section):
    """Late fusion: the two embeddings side by side, one hidden layer, logits."""

    hidden: Count = 1536
    """Width of the hidden layer (ReLU); the paper's is the sum of both embeddings, 1536."""
    dropout: Share = 0.0
    """Of the hidden layer."""
    experts: bool = False
    """Add each modality's own logits to the fused ones; the paper does not."""


class Camera(Section):
    """How training films differ from those on the disk; on a still these movements make a film of it."""

    shift: Share = 0.0
    """Largest displacement of the picture, as a share of its side."""
    zoom: Share = 0.0
    """Nearer or farther by up to this factor: 0.2 is 1/1.2 to 1.2."""
    turn_deg: NotNegative = 0.0
    drift: Share = 0.0
    """Movement within the film: the same share of the picture's side, and of zoom and turn above."""
    mirror: Share = 0.0
    """Chance that left and right are exchanged."""
    upside_down: Share = 0.0
    """Chance that the face stands on its head. No camera does that; the reference's augmentation does."""
    light: Share = 0.0
    """Largest change of contrast and of brightness."""
    noise: Share = 0.0
    """Largest standard deviation of the sensor's noise, as a share of white."""
    erase: Share = 0.0
    """Chance that a rectangle is hidden (Zhong et al., 2020)."""


class Augment(Section):
    """Training-time perturbation of the signal, the spectrogram and the film."""

    time_shift_s: NotNegative = 0.0
    """The window starts up to this much earlier or later."""
    gain_db: NotNegative = 0.0
    """One gain for all microphones, uniform within plus and minus this."""
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Playing speed (pitch and tempo together), drawn within 1 plus and minus this."""
    mic_dropout: Share = 0.0
    """Chance that a microphone is dead; at least one lives."""
    filter_db: NotNegative = 0.0
    """Random equaliser on the log-mels, one for all microphones of a clip, within plus and minus this."""
    vtlp: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Vocal tract length perturbation (Jaitly and Hinton, 2013): the mel bands are stretched within 1 plus and minus
    this."""
    tempo: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The frames are stretched within 1 plus and minus this; pitch stays."""
    time_masks: Annotated[int, Field(ge=0)] = 0
    time_mask_share: Share = 0.125
    """SpecAugment (Park et al., 2019): widest mask, as a share of the frames."""
    band_masks: Annotated[int, Field(ge=0)] = 0
    band_mask_share: Share = 0.125
    mixup: NotNegative = 0.0
    """Alpha of the Beta distribution (Zhang et al., 2018) on log-mels and targets; 0 is off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    camera: Camera = Camera()
    modality_dropout: Share = 0.0
    """Chance that a clip with sound and film loses one of them, each as often as the other. The loss is the expected
    one: nothing is drawn."""


class Train(Section):
    """The optimiser and the schedule."""

    epochs: Count = 50
    batch_size: Count = 32
    """Clips in a step, of all processes together."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine: to zero at the last epoch. step: times step_factor every step_epochs."""
    warmup_epochs: NotNegative = 2.0
    step_epochs: Count = 10
    step_factor: Share = 0.1
    clip_norm: NotNegative = 1.0
    """Largest norm of the gradient; 0 is off."""
    compile: bool = False
    """Let torch.compile fuse the network's layers: a minute's wait, then twice as fast on a processor. Needs a C++
    compiler."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16 where the processor computes in it, else float32."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation loss after which training stops; 0 is off."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The result is an exponential moving average of the weights that keeps this share at each step; 0 is off."""
    keep: Count = 3
    """Best checkpoints kept; their average is the result where it is better than the best of them."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and draw; 0 is the main one. Where several train, each has so many."""
    devices: Count = 1
    """Processes of this machine that train together, one for each GPU. torchrun and srun say it for any number of
    machines: then leave it out."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes share the model. auto, ddp: each has all of it. fsdp: each keeps a part of the weights and
    of the optimiser's state."""


class Recipe(Section):
    """One experiment."""

    name: str = "default"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Everything random follows from it: weights, rooms, noise, augmentation, order."""
    modalities: Literal["audio", "video", "both"] = "audio"
    """What the model takes. both: sound and film, and either alone where the other is missing."""
    data: Data = Data()
    audio: Audio = Audio()
    microphones: Microphones = Microphones()
    rooms: Rooms = Rooms()
    simulation: Simulation = Simulation()
    model: Model = Model()
    video: Video = Video()
    fusion: Fusion = Fusion()
    augment: Augment = Augment()
    train: Train = Train()

    @model_validator(mode="after")
    def _rendered(self) -> Recipe:
        if self.rooms.renderings and self.modalities != "audio":
            raise ValueError(
                f"rooms.renderings are for audio alone, modalities is {self.modalities}; set one or the other"
            )
        return self


EXPECTED = {  # where pydantic speaks of Python
    "missing": "two numbers",
    "too_long": "two numbers",
    "too_short": "one or more",
    "invalid_key": "a key in letters",
    "model_type": "a section with keys",
    "tuple_type": "a list in brackets",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "string_type": "text (in quotes)",
}


def recipe_names() -> list[str]:
    """Names of the recipes that ship with farfeel."""
    folder = resources.files("farfeel") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or file, with `section.key=value` overrides. Raises FarfeelError with one line."""
    name = str(name_or_file)
    if name in recipe_names():
        text = (resources.files("farfeel") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    else:
        near = nearest(name, recipe_names())
        raise FarfeelError(
            f"recipe {name} is neither a file nor one of {', '.join(recipe_names())}"
            + (f"; did you mean {near}?" if near else "; check the name")
        )
    try:
        tree = yaml.load(text, _OnceOnly) or {}
    except yaml.YAMLError as error:
        reason = one_line(str(error).replace(' in "<unicode string>"', ""))
        raise FarfeelError(f"{name} is not YAML ({reason}); correct that line") from None
    if not isinstance(tree, dict):
        raise FarfeelError(
            f"{name} holds a {type(tree).__name__}, expected sections with keys; see farfeel train --help"
        )
    for override in overrides:
        apply_override(tree, override)
    return recipe_from_tree(tree, source=name)


def recipe_from_tree(tree: dict[str, Any], source: str) -> Recipe:
    """Nested dictionaries → Recipe, checked. `source` is named in the error."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        found = first["input"]
        mistyped = first["type"] == "extra_forbidden"
        # Without places in lists, and without the kinds that a value might have been of ("constrained-float").
        key = ".".join(p for p in first["loc"] if isinstance(p, str) and (mistyped or p.isidentifier()))
        if mistyped:
            inner = f".{next(iter(found))}" if isinstance(found, dict) and found else ""  # a mistyped section
            raise FarfeelError(f"{source}: unknown key {key}{inner}; {_nearest(key + inner)}") from None
        if first["type"] == "value_error":  # of our own validators
            message = first["msg"].removeprefix("Value error, ")
            raise FarfeelError(f"{source}: {f'{key}: ' if key else ''}{message}") from None
        expected = EXPECTED.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise FarfeelError(
            f"{source}: {key or 'a key'} is {found!r}, expected {expected}; correct it, farfeel recipe lists all knobs"
        ) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the whole recipe, defaults included, so that it means the same under a later version's defaults."""
    with replacing_file(path) as partial:
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)
        partial.write_text(text, encoding="utf-8")


def describe(section: type[Section] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every knob as (dotted key, default, meaning), for help and documentation."""
    for name, knob in section.model_fields.items():
        if isinstance(knob.default, Section):
            yield from describe(type(knob.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(knob.default), one_line(knob.description or "")


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not all(key.split(".")):
        raise FarfeelError(f"override {override!r} is not of the form section.key=value, e.g. train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise FarfeelError(f"override {override!r}: {section} is {tree!r}, not a section; {_nearest(key)}")
    try:
        tree[last] = yaml.load(value, _OnceOnly)
    except yaml.YAMLError:
        raise FarfeelError(f"override {override!r}: {value!r} is not a YAML value; quote it") from None


class _OnceOnly(yaml.SafeLoader):
    """YAML in which a key may stand once: PyYAML lets the last one win, and so ignores the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _nearest(key: str) -> str:
    key = key.lower()
    known = [name for name, _, _ in describe()]
    by_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    guess = by_leaf[0] if by_leaf else nearest(key, known, cutoff=0.3)
    return f"did you mean {guess}?" if guess else "farfeel recipe lists all keys"
