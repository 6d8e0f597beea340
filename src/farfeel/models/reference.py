"""Weights of other implementations: the paper's reference, HTS-AT pretrained on AudioSet, Swin on images.

All files are read with `weights_only=True`, so that no code in them can run. There are four kinds:

- HTS-AT as published, AudioSet: names `sed_model.…`, 527 classes. The output layer is replaced, the rest is kept.
- A reference model fine-tuned on emotions: the same names. The output layer is kept if the number of classes is ours.
- A Swin transformer for images (`patch_embed.…`, three input channels): its first convolution is averaged over RGB.
- For the video network alone, torchvision's R(2+1)D, Kinetics (`stem.…`, `layer1.…`, 400 classes).

Names correspond one to one, except `layers.i.downsample`: timm has it in the next stage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from farfeel.models.checkpoint import TEMPERATURE, load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.tensor_files import read_tensors, require_finite
from farfeel.types import FarfeelError

REBUILT = re.compile(r"spectrogram_extractor|logmel_extractor|relative_position_index|attn_mask")
"""Constants that are computed here: window and mel matrices, index tables of the attention."""
BRANCH = re.compile(r"hearing\.\d+|video")
OURS = ("hearing.", "logmel.", "microphones.", "video.", "classifier.")  # the parts of an EmotionModel
STEM = "stem.0.weight"  # R(2+1)D's first convolution, by torchvision's name


@dataclass
class LoadReport:
    """What became of every tensor in the file and in the model.

    kind: of the file, for people. The lists hold names: used; replaced: the output layer, with other classes; rebuilt:
    constants that are computed; unused: only in the file; missing: only in the model.
    """

    kind: str
    used: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def has_face(self) -> bool:
        """Whether the file had weights of a video network."""
        return any(our_name(name) == f"video.network.{STEM}" for name in self.used)

    def lines(self) -> list[str]:
        """The report as lines of text."""
        shown = [f"{self.kind}: {len(self.used)} tensors used"]
        for what, names in (
            ("head replaced (other classes)", self.replaced),
            ("constants computed here instead", self.rebuilt),
            ("in the file, not used", self.unused),
            ("not in the file, left at their initial values", self.missing),
        ):
            if names:
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                shown.append(f"  {what}: {', '.join(names[:6])}{more}")
        return shown


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Name → tensor of a `.ckpt`, `.pth` or `.pt` file, also where they are inside `state_dict` or `model`.

    Raises FarfeelError where the file is missing, damaged or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise FarfeelError(f"{path} {problem}; expected a weights file; check the path")
    content = read_tensors(path, "copy the file again")
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise FarfeelError(
            f"{path} holds no named tensors, expected those of HTS-AT, Swin or R(2+1)D; save a state_dict alone"
        )
    require_finite(content, str(path), "copy the file again")
    return content


def load_reference(model: EmotionModel, path: Path) -> LoadReport:
    """Fill `model` from a reference checkpoint. Returns a report. Raises FarfeelError where nothing fits."""
    state = read_state_dict(path)
    if any(name.startswith("sed_model.") for name in state):
        classes = state["sed_model.tscam_conv.weight"].shape[0] if "sed_model.tscam_conv.weight" in state else 0
        kind = "HTS-AT pretrained on AudioSet" if classes == 527 else f"reference model of {classes} classes"
    elif "patch_embed.proj.weight" in state:
        kind = "Swin transformer for images"
    else:
        first = next(iter(state), "none")
        remedy = "name R(2+1)D weights with --video-weights" if STEM in state else "name another file"
        raise FarfeelError(
            f"{path} has neither sed_model.… (HTS-AT) nor patch_embed.… (Swin) names; found {first}; {remedy}"
        )
    return fill(model, state, LoadReport(kind))


def read_video_weights(path: Path) -> dict[str, Tensor]:
    """The video network of a checkpoint folder, or the R(2+1)D weights of a file. Names are torchvision's.

    Raises FarfeelError where there is none.
    """
    if not path.is_dir():
        return read_state_dict(path)
    state = load_checkpoint(path).state_dict()
    if not any(name.startswith("video.") for name in state):
        raise FarfeelError(f"checkpoint {path} has no face branch; name one with modalities=video or both")
    return {name.removeprefix("video.network."): tensor for name, tensor in state.items() if name.startswith("video.")}


def fill_video(model: EmotionModel, state: dict[str, Tensor], kind: str) -> LoadReport:
    """Copy R(2+1)D weights (names `stem.…`, `layer1.…`) into the video network.

    state: name → tensor. kind: of the weights, for people. Returns a report. Raises FarfeelError where none fits.
    """
    if STEM not in state:
        first = next(iter(state), "nothing")
        remedy = "name HTS-AT with --init" if first.startswith("sed_model.") else "name a file of r2plus1d_18"
        raise FarfeelError(f"{kind}: no {STEM}, as R(2+1)D has; found {first}; {remedy}")
    ours = {name for name in model.state_dict() if not name.startswith("video.")}
    report = fill(model, {f"video.network.{name}": tensor for name, tensor in state.items()}, LoadReport(kind))
    report.missing = [name for name in report.missing if name not in ours]  # The rest was never expected in the file.
    return report


def fill(model: EmotionModel, state: dict[str, Tensor], report: LoadReport) -> LoadReport:
    """Copy every tensor that fits by name (ours or the reference's) and by shape.

    state: name → tensor. report: filled in, and returned. Raises FarfeelError where the file is of another network: a
    few of its tensors may fit by chance, and all others would start from random values without a word.
    """
    ours = model.state_dict()
    for name, tensor in state.items():
        if name != TEMPERATURE:  # fitted with weights that are about to change
            _sort_in(ours, name, tensor, report)
    filled = {our_name(name) for name in report.used}
    report.missing = [
        name
        for name in ours
        if name not in filled and name != TEMPERATURE and "tscam_conv" not in name and "num_batches" not in name
    ]
    _require_same_networks(report)
    model.load_state_dict(ours)
    return report


def _sort_in(ours: dict[str, Tensor], name: str, tensor: Tensor, report: LoadReport) -> None:
    """Put one tensor of a file into our state, if it fits, and its name into the report."""
    if REBUILT.search(name):
        report.rebuilt.append(name)
        return
    if name.endswith("patch_embed.proj.weight") and tensor.shape[1] == 3:
        tensor = tensor.mean(dim=1, keepdim=True)  # A spectrogram has one channel: grey instead of RGB.
    target = our_name(name)
    if target in ours and ours[target].shape == tensor.shape:
        ours[target] = tensor.to(ours[target].dtype)
        report.used.append(name)
    elif "tscam_conv" in name:
        report.replaced.append(name)
    else:
        report.unused.append(name)


def _require_same_networks(report: LoadReport) -> None:
    """Raise FarfeelError where less than half of a network's tensors came from the file."""
    if not report.used:
        raise FarfeelError(f"{report.kind}: no tensor fits this recipe's shapes; use a recipe paper-…")
    fitting, lacking = _by_branch(map(our_name, report.used)), _by_branch(report.missing)
    for branch, count in fitting.items():
        if count < lacking[branch]:
            raise FarfeelError(
                f"{report.kind}: {count} of {count + lacking[branch]} tensors fit this recipe's {branch}, expected "
                "weights of the same network; use a recipe paper-… for published ones, or the recipe that made them"
            )


def _by_branch(names: Iterable[str]) -> Counter[str]:
    """How many of the names belong to each network (hearing.N or video)."""
    return Counter(branch[0] for name in names if (branch := BRANCH.match(name)))


def our_name(name: str) -> str:
    """A tensor's name in EmotionModel, from its name in the reference, in HTS-AT or in Swin."""
    if name.startswith(OURS):
        return name
    name = name.removeprefix("sed_model.")
    if name.startswith(("video_encoder.model.", "classifier.")):  # the reference's audio-visual model
        return name.replace("video_encoder.model.", "video.network.")
    name = re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
    inside_swin = name.startswith(("patch_embed.", "layers.", "norm."))
    return f"hearing.0.swin.{name}" if inside_swin else f"hearing.0.{name}"
