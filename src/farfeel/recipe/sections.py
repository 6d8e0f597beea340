"""The sections of a recipe: every setting with its type, its default and its meaning.

`farfeel recipe` prints the lines below each setting.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator

from farfeel.recipe.base import (
    Count,
    Named,
    NotNegative,
    Positive,
    Range,
    SampleRate,
    Section,
    Share,
    Span,
    Stages,
    choices_of,
    settings,
)
from farfeel.support.registry import Registry
from farfeel.types import EMOTIONS, FarfeelError
from farfeel.variants import AUDIO_NETWORKS, FUSIONS, MICROPHONES, NOISES, VIDEO_NETWORKS

TAKES = ("any", "one", "as trained")  # how many microphones a strategy can use


class Data(Section):
    """Which clips, and how they are divided."""

    emotions: tuple[str, ...] = EMOTIONS
    """Classes, in the order of the model's outputs. Clips of other emotions are not used."""
    merge: dict[str, str] = {}
    """Emotions that are not among the classes, and the class that each counts as, e.g. {calm: neutral}."""
    excited: bool = True
    """true: IEMOCAP's excited clips count as happy, as in most results on it. false: they are not used."""
    labels: Literal["intended", "perceived"] = "intended"
    """intended: what was acted. perceived: what most listeners and viewers voted for, in a corpus with votes (CREMA-D);
    clips with tied votes are not used."""
    agreement: Share = 0.0
    """Share of the votes that a perceived label needs. Clips with less are not used."""
    weights: dict[str, Positive] = {}
    """Corpus → how often an epoch draws a clip of it, relative to clips of the others; 1 if not given. An epoch has as
    many examples as there are clips."""
    split: str = "paper"
    """Speaker-independent split. paper: the paper's, for RAVDESS. published: the parts that the folders of stills name.
    folds-N:K: N folds of speakers, with N 3 or more, for any corpus; fold K, from 1, is the test. Folds-5 and folds-6
    of RAVDESS are published ones."""
    learn_validation: bool = False
    """Train on the validation speakers too, for a final model. Then nothing is validated, the last epoch is the result,
    and it is not calibrated."""

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
    """Length of the model's window. In training, a longer clip is cut at random. In testing, a longer recording is cut
    into windows that overlap by half or more, and their mean counts."""
    trim_silence: bool = False
    """Cut off silence at the beginning and the end (40 dB below the loudest frame): of dry clips in training and
    testing, and of recordings to be recognised."""
    normalise_level: bool = False
    """Scale each microphone of a recording to -26 dB RMS."""
    range_db: Positive | None = None
    """Log-mels are kept within this range below the loudest of each microphone; lower values are raised to its lower
    end. null: all values are kept."""
    mean_norm: Share = 0.0
    """Share of each band's mean over the speech, subtracted from the log-mels of each microphone. The mean is the
    colour of the voice, the room and the microphone. 1: all of it, as in cepstral mean normalisation."""
    n_fft: Annotated[int, Field(ge=1, le=131072)] = 1024
    """Samples in one Fourier frame."""
    hop: Count = 160
    """Samples between frames."""
    mel_bands: Annotated[int, Field(ge=1, le=1024)] = 64
    fmin_hz: NotNegative = 50.0
    fmax_hz: Positive = 8000.0
    """Upper edge of the filters. The reference uses 14000 at 16 kHz: nine filters are empty."""

    @property
    def window_samples(self) -> int:
        """Samples in the model's window."""
        return round(self.seconds * self.sample_rate)

    @model_validator(mode="after")
    def _fits(self) -> Audio:
        highest_hz = min(self.fmax_hz, self.sample_rate / 2)
        if self.fmin_hz >= highest_hz:
            raise ValueError(f"fmin_hz is {self.fmin_hz:g}, expected less than {highest_hz:g} Hz; lower it")
        if self.n_fft > self.seconds * self.sample_rate:
            raise ValueError(f"n_fft is {self.n_fft}, the window has {self.seconds * self.sample_rate:.0f}; lower it")
        return self


class Microphones(Section):
    """How many microphones, and how they are fused."""

    strategy: Annotated[str, Named(MICROPHONES)] = "average-mels"
    """How several microphones become one input of the network."""
    options: dict[str, Any] = {}
    """Further arguments of the strategy, e.g. {name: value}."""
    count: Count = 1
    """Microphones that are drawn for each training clip, from those of the room response."""
    front_end: Literal["none", "mvdr", "wpe"] = "none"
    """Processing of the microphones before recognition. mvdr: a blind beamformer, against noise and other talkers. wpe:
    dereverberation, against the late sound of the room. Training does not use it."""

    @property
    def takes(self) -> str:
        """How many microphones the strategy can use: one of TAKES. Raises FarfeelError where a plug-in has another."""
        value = MICROPHONES.variant(self.strategy).constant("takes", "any")
        if value not in TAKES:
            raise FarfeelError(
                f"microphone strategy {self.strategy} has takes = {value!r}, expected {' or '.join(TAKES)}; correct "
                "its class"
            )
        return str(value)


class Rooms(Section):
    """The rooms and the noise between a dry training clip and the microphones."""

    dry: Share = 0.0
    """Share of training clips without a room: all microphones get the dry clip."""
    snr_db: Range | None = None
    """Range of the signal-to-noise ratio, over all microphones together. null: no noise is added."""
    noise: Annotated[tuple[Annotated[str, Named(NOISES)], ...], Field(min_length=1)] = ("white",)
    """Kinds of noise to draw from. A kind that the clips do not allow is not used, if another kind is named: prepared
    clips have no positions for babble and fan, and a single training speaker has no other speakers for babble."""
    renderings: Annotated[int, Field(ge=0)] = 0
    """Versions of each training clip (room, noise, speed, position in the window). They are computed once, kept in
    memory as log-mels, and used in turn. 0: a new version in every epoch. For modalities=audio only."""
    noise_folder: str | None = None
    """Folder of recorded noise. A file with enough channels is used as it is."""


class Simulation(Section):
    """The rooms that `farfeel rooms simulate` draws, uniformly within these ranges."""

    width_m: Span = (3.0, 8.0)
    length_m: Span = (3.0, 10.0)
    height_m: Span = (2.4, 3.6)
    t60_s: Span = (0.2, 1.3)
    """Reverberation time at 1 kHz. The paper: 0.5 to 0.85."""
    t60_low: Span = (1.0, 1.0)
    """Reverberation time at 125 Hz, as a multiple of t60_s."""
    t60_high: Span = (1.0, 1.0)
    """Reverberation time at 8 kHz, as a multiple of t60_s. Air and soft furniture absorb high frequencies: measured
    rooms have 0.4 to 0.9."""
    facing_db: Span = (0.0, 0.0)
    """Level of the direct sound, relative to a source that radiates equally in all directions. A talker who faces the
    microphones has more than 0."""
    array: Literal["free", "linear", "circular"] = "free"
    """free: each microphone anywhere within a ball of radius array_radius_m. linear, circular: equally spaced."""
    array_radius_m: Span = (0.05, 0.5)
    distance_m: Span = (0.5, 4.0)
    """From the source to the centre of the array."""
    source_height_m: Span = (1.0, 1.8)
    wall_margin_m: Positive = 0.3
    """Smallest distance of a source or a microphone from a wall."""
    sources_per_room: Count = 1
    """Positions of the source in each room, with one position of the array. Babble needs two or more, to come from
    another position than the talker."""
    sample_rate: SampleRate = 16000


class Model(Section):
    """The audio network. The defaults are the reference's HTS-AT: a Swin transformer on a 256 x 256 image."""

    network: Annotated[str, Named(AUDIO_NETWORKS)] = "htsat"
    """residual uses widths, frequency_norm and dropout; htsat uses stem and all settings after it."""
    options: dict[str, Any] = {}
    """Further arguments of the network, e.g. {name: value}."""
    widths: Annotated[tuple[Count, ...], Field(min_length=2, max_length=5)] = (16, 32, 64, 128, 128)
    """Channels of the residual network's stem and of its blocks."""
    frequency_norm: NotNegative | tuple[NotNegative, ...] = 0.0
    """Between the residual network's blocks, each frequency is normalised to mean 0 and deviation 1 over the recording,
    and this share of the input is added. 0: no normalisation. A list: one number for each member."""
    members: Count = 1
    """Networks in parallel; their mean probability counts. farfeel merge makes such a model of several checkpoints."""
    stem: Literal["patch", "conv"] = "patch"
    """patch: one strided convolution, as in the reference. conv: a small residual CNN, for little data."""
    stem_width: Count = 32
    """Channels of the conv stem's first block."""
    image_frames: Annotated[int, Field(ge=1, le=131072)] = 1024
    """The spectrogram is resized (bicubic) to this many frames. It must be a multiple of chunks."""
    chunks: Count = 4
    """Pieces of the time axis that are stacked on the frequency axis, so that the image is square."""
    patch: Literal[2, 4, 8, 16] = 4
    """Mel bands and frames in one token. The stem reduces both axes by this factor."""
    embed_dim: Count = 96
    depths: Stages = (2, 2, 6, 2)
    heads: Stages = (4, 8, 16, 32)
    window: Annotated[int, Field(ge=1, le=64)] = 8
    dropout: Share = 0.0
    """Dropout of the embedding, before the output layer."""
    drop_path: Share = 0.1
    pooling: Literal["mean", "attention"] = "mean"
    """How the logits of the time tokens become one vector. mean: all alike. attention: with learned weights."""

    @property
    def frequency_norms(self) -> tuple[float, ...]:
        """frequency_norm of each member."""
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
    """From the video to the frames of the face, and the video network, R(2+1)D."""

    frames: Count = 8
    """Frames of the face, at equal distances over the window of the audio."""
    size: Annotated[int, Field(ge=16, le=1024)] = 112
    """Every frame is resized to a square with sides of this many pixels."""
    train_size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """In training, a square with sides of this many pixels is cut out at random. null: the whole frame."""
    crop: Literal["face", "none"] = "face"
    """face: one fixed square around the face. none: the whole picture, as in the reference."""
    margin: NotNegative = 0.25
    """Margin around the detected face on each side, as a share of its width."""
    network: Annotated[str, Named(VIDEO_NETWORKS)] = "r2plus1d_18"
    """compact uses width, blocks and dropout; r2plus1d_18 uses dropout."""
    options: dict[str, Any] = {}
    """Further arguments of the network, e.g. {name: value}."""
    width: Count = 16
    """Channels of the compact network's first stage; each following stage has twice as many."""
    blocks: Stages = (1, 1, 1, 1)
    """Blocks of the compact network's stages."""
    dropout: Share = 0.0
    """Dropout of the pooled features, before the embedding."""


class Fusion(Section):
    """Late fusion: from the embeddings of audio and of video to logits. For modalities=both only."""

    later = ("strategy", "options")

    strategy: Annotated[str, Named(FUSIONS)] = "concatenation"
    """How the two embeddings become logits."""
    options: dict[str, Any] = {}
    """Further arguments of the fusion, e.g. {name: value}."""
    hidden: Count = 1536
    """Width of the hidden layer. In the paper it is the sum of both embeddings, 1536."""
    dropout: Share = 0.0
    """Dropout of the hidden layer."""
    experts: bool = False
    """Add each modality's own logits to the fused ones. The paper does not."""


class Camera(Section):
    """Random changes of the training videos. On a still picture, these movements make a video of it."""

    shift: Share = 0.0
    """Largest displacement of the picture, as a share of its side."""
    zoom: Share = 0.0
    """Largest zoom in or out: 0.2 is a factor of 1/1.2 to 1.2."""
    turn_deg: NotNegative = 0.0
    """Largest rotation."""
    drift: Share = 0.0
    """Largest movement within one video: this share of the picture's side, of zoom and of turn_deg."""
    mirror: Share = 0.0
    """Chance that left and right are exchanged."""
    upside_down: Share = 0.0
    """Chance that the picture is upside down. No camera does that; the reference's augmentation does."""
    light: Share = 0.0
    """Largest change of contrast and of brightness."""
    noise: Share = 0.0
    """Largest standard deviation of the sensor's noise, as a share of white."""
    erase: Share = 0.0
    """Chance that a rectangle is hidden (Zhong et al., 2020)."""


class Augment(Section):
    """Random changes of the signal, the spectrogram and the video, in training only."""

    time_shift_s: NotNegative = 0.0
    """The window starts earlier or later by up to this."""
    gain_db: NotNegative = 0.0
    """Gain, the same for all microphones, uniform within plus and minus this."""
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Playing speed (pitch and tempo together), uniform within 1 plus and minus this."""
    mic_dropout: Share = 0.0
    """Chance that a microphone is dead. At least one works."""
    filter_db: NotNegative = 0.0
    """Random equaliser on the log-mels, the same for all microphones of a clip, within plus and minus this."""
    vtlp: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Vocal tract length perturbation (Jaitly and Hinton, 2013): the mel bands are stretched by a factor within 1
    plus and minus this."""
    tempo: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The frames are stretched by a factor within 1 plus and minus this. The pitch does not change."""
    time_masks: Annotated[int, Field(ge=0)] = 0
    time_mask_share: Share = 0.125
    """SpecAugment (Park et al., 2019): width of the widest mask, as a share of the frames."""
    band_masks: Annotated[int, Field(ge=0)] = 0
    band_mask_share: Share = 0.125
    """Width of the widest mask, as a share of the mel bands."""
    mixup: NotNegative = 0.0
    """Two clips of a batch are mixed: waveforms, video frames and targets; with rooms.renderings, log-mels instead
    of waveforms. The number is alpha of the Beta distribution (Zhang et al., 2018); 0 is off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    camera: Camera = Camera()
    modality_dropout: Share = 0.0
    """Chance that a clip with audio and video loses one of them, both equally often. Nothing is drawn: the loss is the
    expected loss."""


class Train(Section):
    """The optimiser and the schedule."""

    epochs: Count = 50
    batch_size: Count = 32
    """Clips in a step, of all processes together."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """The learning rate after the warm-up. cosine: falls to zero at the last epoch. step: times step_factor every
    step_epochs. constant: stays."""
    warmup_epochs: NotNegative = 2.0
    step_epochs: Count = 10
    step_factor: Share = 0.1
    clip_norm: NotNegative = 1.0
    """Largest norm of the gradient; 0 is off."""
    compile: bool = False
    """Let torch.compile fuse the audio network's layers: a minute of compilation, then twice as fast on a processor. It
    needs a C++ compiler."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed if the GPU or the processor computes in bfloat16, else 32-true."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation loss after which training stops; 0 is off."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is the result; 0 is off."""
    keep: Count = 3
    """How many of the best epochs are kept. Their average is the result if it is better than the best of them."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and draw examples, for each training process. 0: the training process itself."""
    devices: Count = 1
    """Processes of this machine that train together, one for each GPU. Do not set it with torchrun or srun: they start
    the processes."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes share the model. auto, ddp: each has the whole model. fsdp: each has a part of the weights
    and of the optimiser's state."""


class Recipe(Section):
    """One experiment."""

    later = ("packages",)

    name: str = "default"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """All random draws follow from it: weights, rooms, noise, augmentation, order."""
    modalities: Literal["audio", "video", "both"] = "audio"
    """The input of the model. both: audio and video, and one of them alone if the other is missing."""
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

    @model_validator(mode="before")
    @classmethod
    def _packages_follow(cls, tree: Any) -> Any:
        """A recipe's file names the packages, for those who lack them. Here they follow from the names in it."""
        if isinstance(tree, dict):
            tree = {name: value for name, value in tree.items() if name != "packages"}
        return tree

    @computed_field  # type: ignore[prop-decorator]
    @property
    def packages(self) -> dict[str, str]:
        """The packages beside farfeel that it needs: setting → name and version, {"fusion.strategy": "mine 0.1"}."""
        needed = {}
        for key, registry in NAMED.items():
            value: Any = self
            for part in key.split("."):
                value = getattr(value, part)
            names = value if isinstance(value, tuple) else (value,)
            brought = {registry.variant(name).package for name in names if name in registry} - {""}
            if brought:
                needed[key] = ", ".join(sorted(brought))
        return needed


NAMED: dict[str, Registry[Any]] = {
    key: registry
    for key, section, name in settings(Recipe)
    if isinstance(registry := choices_of(section, name), Registry)
}
"""The settings that name variants."""
