"""The settings of the experiment: names, types and units. The values and their reasons are in conf/."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(ge=0, le=255)]  # of a pixel


class Section(BaseModel):
    """A section of params.yaml: unknown keys are refused, and nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    source: Literal["icons", "folder", "voc2012"]
    root: str | None  # what the source reads: the folder in VOC layout, the downloads; icons read nothing
    dev: Count  # images held out of train, unless the source has a dev list of its own
    seed: int
    test_root: str | None  # folder VOC2012 of the test archive: trains on train + val, predicts test for the server


class Icons(Section):
    train: Count
    dev: Count
    val: Count
    width: Annotated[int, Field(ge=64)]
    height: Annotated[int, Field(ge=64)]
    seed: int


class Proposals(Section):
    max_boxes: Count
    edges: Literal["learned", "forest", "gradient"]  # boundary network, structured forest, image gradient
    forest: str | None  # path or address of OpenCV's structured-forest model
    forest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None  # of a downloaded file
    min_area: Positive  # px²
    alpha: Fraction  # of Edge Boxes: step of its search, as the IoU of neighbouring boxes
    beta: Fraction  # of Edge Boxes: threshold of its non-maximum suppression

    @model_validator(mode="after")
    def _forest_has_a_file(self) -> Self:
        if self.edges == "forest" and self.forest is None:
            raise ValueError("edges forest needs forest, a path or an address")
        return self


class Network(Section):
    blocks: list[tuple[Count, Count]]
    fc: Count
    size: Count  # px; side of the input
    bn_eps: Positive
    pixel_std: Positive

    @model_validator(mode="after")
    def _poolings_divide_the_size(self) -> Self:
        if self.size % 2 ** len(self.blocks):
            raise ValueError(f"size {self.size} is not a multiple of {2 ** len(self.blocks)}: each block halves it")
        return self


class Solver(Section):
    """What every training has."""

    optimizer: Literal["sgd", "adamw"]
    lr: Positive
    momentum: Fraction  # SGD's momentum, AdamW's first beta
    weight_decay: Annotated[float, Field(ge=0)]
    weight_decay_scaling: Literal["paper", "caffe"]  # caffe: divided by `micro_batches`
    bias_lr_factor: Positive  # for the biases of convolutions and deconvolutions
    bias_decay: bool
    encoder_lr_factor: Positive  # for all parameters of the encoder
    blocks_lr_factor: Positive = 1.0  # a further one, for its convolutions alone: all but fc6 and fc7
    schedule: Literal["step", "plateau", "cosine"]
    step_size: Count  # iterations between two drops to a tenth, schedule "step"
    eval_every: Count  # iterations between two evaluations on dev, schedule "plateau"
    warmup: Annotated[int, Field(ge=0)]  # iterations of linear warm-up
    iterations: Annotated[int, Field(ge=0)]  # 0: the initial weights are the result
    batch_size: Count
    micro_batches: Count  # a batch runs as so many; each has batch-norm statistics of its own
    bn_batches: Annotated[int, Field(ge=0)]  # batches averaged for the BN statistics of inference; 0: kept as they are
    bn_batch_size: Count  # images in each of them
    seed: int


class Boundaries(Solver):
    widths: Annotated[list[Count], Field(min_length=2)]  # channels of each level of the network
    crop_size: Count  # px; side of the training crops
    zoom: tuple[Positive, Positive]  # range of the crop's width before resizing, in multiples of crop_size
    scales: Annotated[list[Positive], Field(min_length=1)]  # of the image; the maps at all scales are averaged


class Backbone(Solver):
    source: Literal["vgg16", "caffe", "file", "train", "none"]  # train: a crop classifier; none: random
    path: str | None  # of VGG-16's .caffemodel, or .npz or .safetensors file; sources caffe and file only
    channel_order: Literal["RGB", "BGR"] | None = None  # of the pixels that the file's first layer takes
    mean: tuple[Level, Level, Level] | None = None  # that is taken off these pixels, in their order
    context: Positive
    square_boxes: bool
    resize_before_crop: Count | None
    proposal_iterations: Annotated[int, Field(ge=0)]  # on stage 2's crops, after `iterations` on stage 1's
    colour_augmentation: bool  # channels are permuted; half of the crops are inverted

    @model_validator(mode="after")
    def _file_is_described(self) -> Self:
        if (self.source in ("caffe", "file")) != (self.path is not None):
            raise ValueError("sources caffe and file need a path, the others none")
        of_file = {"channel_order": self.channel_order, "mean": self.mean}
        if wrong := [key for key, value in of_file.items() if (self.source == "file") != (value is not None)]:
            raise ValueError(f"source file needs channel_order and mean, the others neither: {' and '.join(wrong)}")
        return self


class Crops(Solver):
    context: Positive  # the box is extended by this factor
    square_boxes: bool  # the release's boxes are square
    resize_before_crop: Count | None  # px; then a random crop of network.size; None: resized straight to it
    class_balance: bool | Fraction  # sampling weight of a class of n examples: n^(1 - this); true: all classes alike
    min_iou: Fraction | None  # of a proposal with an object, to be an example; stage 2
    background_fraction: Fraction  # share of negative proposals among the examples; stage 2
    negatives_among: Count | None  # they are taken from the best so many proposals; stage 2


class Fcn(Solver):
    padding: Literal["fc6", "image"]  # where fc6 gets its margin; image: 100 px
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
    num_proposals: Count
    context: Positive
    square_boxes: bool
    min_side: Annotated[int, Field(ge=0)]  # px; boxes whose shorter side is smaller are skipped before the count
    antialias: bool  # smooth what shrinks, as MATLAB's imresize does [unverified]
    fcn_canvas: Count | None  # px; FCN-8s's image is padded to a square of this side
    batch_size: Count


class Ensemble(Section):
    rule: Literal["mean", "product"]


class Kernel(Section):
    gaussian_weight: Annotated[float, Field(ge=0)]
    gaussian_xy: Positive
    bilateral_weight: Annotated[float, Field(ge=0)]
    bilateral_xy: Positive
    bilateral_rgb: Positive


class Crf(Section):
    candidates: Annotated[list[Kernel], Field(min_length=1)]  # the first is the paper's; the best on dev is used
    iterations: Count
    normalise: bool


class Evaluation(Section):
    small: Fraction
    medium: Fraction
    figure7_images: Count  # in figure 7


class Report(Section):
    proposal_counts: list[Count]  # numbers of proposals at which val is evaluated; claim C4
    size_edges: list[Positive]  # bin edges of C5: √(box area / image area)
    boundary_width: Count  # px on either side of a boundary; claim C8
    resamples: Annotated[int, Field(ge=2000)]  # of the bootstrap
    seed: int
    browser_images: Annotated[int, Field(ge=0)]  # images of val in the report's browser


SOLVERS = ("boundaries", "backbone", "stage1", "stage2", "fcn")  # the sections that train a network


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
        iterations = self.backbone.iterations + self.backbone.proposal_iterations
        trained = self.backbone.source in ("train", "file") and iterations
        if trained and self.fcn.iterations and self.weights.fcn8s.source == "backbone" and not self.fcn.batch_norm:
            raise ValueError("a backbone that is trained here has batch norm, which fcn.batch_norm false would drop")
        for name in SOLVERS:
            solver = getattr(self, name)
            if solver.batch_size % solver.micro_batches:
                sizes = f"{name}.batch_size {solver.batch_size}", f"{name}.micro_batches {solver.micro_batches}"
                raise ValueError(f"{sizes[0]} is not a multiple of {sizes[1]}")
            if (getattr(solver, "resize_before_crop", None) or self.network.size) < self.network.size:
                sizes = f"{name}.resize_before_crop {solver.resize_before_crop}", f"network.size {self.network.size}"
                raise ValueError(f"{sizes[0]} is smaller than {sizes[1]}")
        if self.stage2.min_iou is None or self.stage2.negatives_among is None:
            raise ValueError("stage2 needs min_iou and negatives_among")
        return self
