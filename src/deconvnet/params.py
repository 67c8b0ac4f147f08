"""The settings of a run: typed, validated, composed from conf/ into params.yaml.

conf/voc2012.yaml holds the paper's settings. Every other profile names the one it `inherits` and lists its departures.
params.yaml is the composed form of one profile, without comments; DVC and the notebooks read only that.

    python -m deconvnet.params icons > params.yaml
"""

import sys
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deconvnet.errors import UserError
from deconvnet.paths import PARAMS, ROOT

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    source: Literal["icons", "folder", "voc2012"]
    root: str  # what the source reads: the folder in VOC layout, the downloads, the generator's code
    dev: Count  # images held out of train, unless the source has a dev list of its own
    seed: int
    # VOC2012 of the test archive: trains on train and val, and labels its pictures for the server
    test_root: str | None


class Icons(Section):
    train: Count
    dev: Count
    val: Count
    width: Annotated[int, Field(ge=64)]
    height: Annotated[int, Field(ge=64)]
    seed: int


class Proposals(Section):
    boxes: Count
    edges: Literal["learned", "forest", "gradient"]  # of the boundary network, the structured forest, the image
    forest: str | None  # path of OpenCV's structured-forest model, or the address it is downloaded from
    forest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None  # what a download must have
    min_area: Positive  # px²
    step: Fraction  # α of Edge Boxes: overlap of neighbouring boxes in its search
    overlap: Fraction  # β of Edge Boxes: two boxes that overlap more are one

    @model_validator(mode="after")
    def _forest_has_a_file(self) -> Self:
        if self.edges == "forest" and self.forest is None:
            raise ValueError("edges forest needs forest, a path or an address")
        return self


class Network(Section):
    blocks: list[tuple[Count, Count]]
    fc: Count
    size: Count
    bn_eps: Positive
    pixel_std: Positive


class Solver(Section):
    """What every training shares."""

    optimizer: Literal["sgd", "adamw"]
    lr: Positive
    momentum: Fraction  # SGD's momentum, AdamW's first beta
    weight_decay: Annotated[float, Field(ge=0)]
    decay: Literal["nominal", "effective"]  # "effective": divided by `accumulate`, as the release's Caffe does
    bias_lr: Positive  # factor on the rate of the (de)convolutions' biases
    bias_decay: bool
    encoder_lr: Positive  # factor on the encoder's rate
    schedule: Literal["step", "plateau", "cosine"]
    step: Count  # updates between two drops to a tenth, schedule "step"
    look: Count  # updates between two looks at dev, schedule "plateau"
    warmup: Annotated[int, Field(ge=0)]  # updates of linear warm-up
    updates: Annotated[int, Field(ge=0)]  # 0: the weights it starts from are taken as they are
    batch: Count
    accumulate: Count  # the batch runs in so many parts; batch norm sees one part
    bn_batches: Annotated[int, Field(ge=0)]  # batches averaged into the BN statistics of inference; 0: left alone
    bn_batch: Count  # their size
    seed: int


class Boundaries(Solver):
    widths: Annotated[list[Count], Field(min_length=2)]  # channels of each level of the network
    crop: Count  # px; side of the training crops
    zoom: tuple[Positive, Positive]  # they are cut between so many times as wide, and resized
    scales: Annotated[list[Positive], Field(min_length=1)]  # of the image, whose answers are averaged


class Backbone(Solver):
    source: Literal["vgg16", "caffe", "train", "none"]  # "train": a classifier on the spot; "none": random weights
    path: str | None  # the .caffemodel of VGG-16; "caffe" only
    context: Positive
    square: bool
    jitter: Count | None
    proposal_updates: Annotated[int, Field(ge=0)]  # after `updates` on stage 1's crops, so many on stage 2's
    recolour: bool  # channels of the crops are permuted, half of the crops are negatives


class Crops(Solver):
    context: Positive  # the box is extended by this factor
    square: bool  # the release's boxes are square
    jitter: Count | None  # crops are resized to this side, then cut at random to the network's; None: straight
    balance: bool | Fraction  # true: rare classes are repeated until each is drawn alike; 0.5: half as far, and so on
    iou: Fraction | None  # a proposal counts if it overlaps an object by this much; stage 2
    misses: Fraction  # share of examples that are windows of inference which overlap no object so; stage 2


class Fcn(Solver):
    padding: Literal["fc6", "image"]  # fc6's margin: around its own input, or the authors' 100 px around the image
    batch_norm: bool
    dropout: Fraction


class Weights(Section):
    """Published .caffemodel files to start from instead of the backbone."""

    source: Literal["backbone", "caffe"]
    path: str | None

    @model_validator(mode="after")
    def _path_of_caffe(self) -> Self:
        if (self.source == "caffe") != (self.path is not None):
            raise ValueError("source caffe needs a path, source backbone none")
        return self


class Published(Section):
    deconvnet: Weights
    fcn8s: Weights


class Inference(Section):
    windows: Count
    context: Positive
    square: bool
    min_side: Annotated[int, Field(ge=0)]  # px; boxes whose shorter side is smaller are skipped before the count
    antialias: bool  # what shrinks is smoothed, windows and their scores, as MATLAB's imresize does [recalled]
    canvas: Count | None  # px; FCN-8s sees its image padded to a square of this side
    batch: Count


class Ensemble(Section):
    rule: Literal["mean", "product"]


class Kernel(Section):
    gaussian_weight: Annotated[float, Field(ge=0)]
    gaussian_xy: Positive
    bilateral_weight: Annotated[float, Field(ge=0)]
    bilateral_xy: Positive
    bilateral_rgb: Positive


class Crf(Section):
    candidates: Annotated[list[Kernel], Field(min_length=1)]  # the best on dev is used
    steps: Count
    normalise: bool


class Evaluation(Section):
    small: Fraction
    medium: Fraction
    examples: Count  # rows of figure 7


class Report(Section):
    windows: list[Count]  # numbers of windows at which val is measured; claim C4
    sizes: list[Positive]  # edges of the bins of C5: side of an object's box, relative to the image's
    contour: Count  # px; how near a contour is near; claim C8
    resamples: Annotated[int, Field(ge=2000)]  # of the bootstrap
    seed: int
    browse: Annotated[int, Field(ge=0)]  # images of val in the report's browser


class Params(Section):
    profile: str
    data: Data
    icons: Icons
    boundaries: Boundaries
    proposals: Proposals
    network: Network
    backbone: Backbone
    stage1: Crops
    stage2: Crops
    fcn: Fcn
    weights: Published
    inference: Inference
    ensemble: Ensemble
    crf: Crf
    evaluation: Evaluation
    report: Report

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.backbone.source == "caffe") != (self.backbone.path is not None):
            raise ValueError("backbone.source caffe needs a backbone.path, the other sources none")
        for name in ("boundaries", "backbone", "stage1", "stage2", "fcn"):
            solver = getattr(self, name)
            if solver.batch % solver.accumulate:
                raise ValueError(
                    f"{name}.batch {solver.batch} is not a multiple of {name}.accumulate {solver.accumulate}"
                )
            if (getattr(solver, "jitter", None) or self.network.size) < self.network.size:
                raise ValueError(f"{name}.jitter {solver.jitter} is smaller than network.size {self.network.size}")
        return self


def read_yaml(path: Path) -> dict:
    try:
        settings = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except Exception as error:  # PyYAML raises a dozen kinds: an impossible date is a ValueError, deep nesting another
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold one mapping of sections, not {type(settings).__name__}.")
    return settings


def validate(settings: dict, source: str) -> Params:
    """Raises UserError naming every key that is unknown, missing or of the wrong kind."""
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc'])) or 'together'}: {e['msg'].lower()}" for e in error.errors()]
        raise UserError(
            f"{source} has {len(found)} wrong setting(s): {'; '.join(found)}. "
            "The sections and their types stand in src/deconvnet/params.py, the values and reasons in conf/."
        ) from None


def load(path: Path = PARAMS) -> Params:
    return validate(read_yaml(path), path.name)


def merge(base: dict, departures: dict) -> dict:
    merged = dict(base)
    for key, value in departures.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def compose(profile: str, conf: Path = ROOT / "conf") -> dict:
    """The complete settings of a profile: those it inherits, with its own departures on top."""
    path = conf / f"{profile}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in conf.glob("*.yaml")))
        raise UserError(f"There is no profile '{profile}'. Known: {known} (files of {conf.name}/).")
    settings = read_yaml(path)
    if inherits := settings.pop("inherits", None):
        settings = merge(compose(inherits, conf), settings)
    return settings | {"profile": profile}


def dump(settings: dict) -> str:
    validate(settings, "The composed profile")
    header = "# Generated from conf/ (the reasons stand there): python -m deconvnet.params icons > params.yaml\n"
    return header + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)


if __name__ == "__main__":
    try:
        sys.stdout.write(dump(compose(*sys.argv[1:2])))
    except UserError as error:
        sys.exit(str(error))
