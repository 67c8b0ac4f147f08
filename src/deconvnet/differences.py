"""The Differences table: where the paper, its authors' release and this project part, and why.

    python -m deconvnet.differences        writes docs/differences.md

The values of this project's two columns are read from conf/; what the paper and the release do stands here.
"""

from functools import reduce
from typing import NamedTuple

from deconvnet import params
from deconvnet.paths import ROOT

PAGE = ROOT / "docs" / "differences.md"
SAME = "as the paper"
UNKNOWN = "not said"


class Row(NamedTuple):
    what: str
    paper: str
    release: str
    ours: tuple[str, ...] | str  # keys of the settings, or words where nothing can be set
    why: str
    notebook: str


ROWS = (
    Row("Training data", "VOC 2012 train + val with SBD's annotations, 12,031 images; reported on VOC test", SAME,
        ("data.source", "data.root", "data.dev", "data.test_root"),
        "VOC's test labels are private: trained on train_aug less a dev list, reported on val; voc2012-trainval "
        "trains on both and writes the VOC server's archive. The default needs no download", "data"),
    Row("Encoder", "VGG-16 trained on ILSVRC", "the Caffe file",
        ("backbone.source", "backbone.path"),
        "voc2012: torchvision's VGG-16, trained on scaled RGB with ImageNet's own mean: its first layer takes up the "
        "scale, and the mean goes with it; or the Caffe file, its first layer turned from BGR to RGB. Default: a "
        "classifier of crops, trained on the spot", "backbone"),
    Row("Backbone's training", "none: published weights", SAME, 
        ("backbone.updates", "backbone.proposal_updates", "backbone.recolour"),
        "read by backbone.source train alone: crops of objects and of proposals in other colours", "backbone"),
    Row("DeconvNet's start", "the backbone; stage 2 from stage 1", SAME, ("weights.deconvnet.source",),
        "or the authors' file: weights.deconvnet {source: caffe, path: …}", "train"),
    Row("Network", "VGG-16 and its mirror, 224×224, fc 4096", SAME,
        ("network.blocks", "network.fc", "network.size"), "minutes on two cores", "train"),
    Row("Output layer", "1×1, its table says pad 1", "pad 0", "pad 0", "pad 1 would give 226×226: a misprint", "train"),
    Row("Batch norm's epsilon", UNKNOWN, "1e-9", ("network.bn_eps",),
        "from scratch channels die at first; 1e-9 would blow them up", "train"),
    Row("Pixels", "less the mean, not scaled", "BGR, two means that differ in the third decimal",
        ("network.pixel_std",), "RGB, and one mean for training and inference: that which the encoder's weights were "
        "trained with (torchvision's 123.675, 116.28, 103.53; the inference mean with a Caffe file; else the training "
        "mean). From scratch unit variance learns faster", "train"),
    Row("Solver", "SGD, momentum 0.9", SAME,
        ("stage1.optimizer", "stage2.optimizer", "backbone.optimizer"),
        "plain SGD learns far too slowly in a thousand updates", "train"),
    Row("Learning rate, stages 1 and 2", "0.01", "0.01", ("stage1.lr", "stage2.lr", "backbone.lr"),
        "chosen on dev for AdamW", "train"),
    Row("Encoder's rate", "the same", "the same",
        ("stage1.encoder_lr", "stage2.encoder_lr"),
        "a factor: the new decoder needs a high rate, the trained encoder does not", "train"),
    Row("Rate's schedule", "×0.1 when validation accuracy stops improving",
        "×0.1 every 9,000 (stage 1) and 10,000 (stage 2) updates",
        ("stage1.schedule", "stage1.step", "stage1.look", "stage2.schedule", "stage2.step", "backbone.schedule",
         "stage1.warmup", "stage2.warmup", "backbone.warmup"),
        "the release's steps need no judgement; `plateau` is the paper's, which does not say how often it looks; a "
        "cosine fits a short training", "train"),
    Row("Momentum after a drop of the rate", UNKNOWN, "Caffe: past steps keep the old rate",
        "PyTorch: past steps take the new rate", "differs for some ten updates after each drop", "train"),
    Row("Weight decay", "5e-4", "5e-4 added once to a gradient summed over 8 passes, then divided by 8: 6.25e-5",
        ("stage1.weight_decay", "stage2.weight_decay", "backbone.weight_decay", "stage1.decay", "stage2.decay",
         "backbone.decay"),
        "effective: the release's division; paper: nominal. AdamW's decay is another quantity", "train"),
    Row("Biases", UNKNOWN, "rate ×2, no decay; batch norm's scale and shift are decayed",
        ("stage1.bias_lr", "stage1.bias_decay", "stage2.bias_lr", "stage2.bias_decay", "backbone.bias_lr",
         "backbone.bias_decay"), "AdamW has no use for it", "train"),
    Row("Updates, stages 1 and 2", "20,000 and 40,000", "the same", ("stage1.updates", "stage2.updates"),
        "minutes on two cores; the paper's took six days on a 12 GB Titan X (2 + 4 [recalled])", "train"),
    Row("Set of examples", "0.2 M crops for stage 1, 2.7 M for stage 2", SAME, "cut on the fly, drawn with replacement",
        "the same number of examples is seen; nothing is stored, and the draws follow from (seed, update) alone",
        "train"),
    Row("Batch", "64", "8 passes of 8 images, batch norm over 8; loss averaged over the passes",
        ("stage1.batch", "stage1.accumulate", "stage2.batch", "stage2.accumulate", "backbone.batch",
         "backbone.accumulate"), "small crops need no accumulation", "train"),
    Row("Batch norm for inference", UNKNOWN, "statistics averaged over 501 batches of 28, then folded",
        ("stage1.bn_batches", "stage1.bn_batch", "stage2.bn_batches", "stage2.bn_batch", "backbone.bn_batches",
         "backbone.bn_batch"),
        "not folded. PyTorch's variances are unbiased; the release's script means them to be, but divides integers, so "
        "that its correction is 1 [recalled]", "train"),
    Row("Crop", "the box extended by 1.2", "square boxes (six published lines); side 1.2 × the longer one (inferred)",
        ("stage1.context", "stage1.square", "stage2.context", "stage2.square", "inference.context",
         "inference.square"), "the release's", "train"),
    Row("Outside of the image", "zeros, ignored in the loss", SAME, "zeros before the mean is taken off",
        "whether the release pads before or after the mean is not known", "train"),
    Row("Jitter of crops", "250 → 224 in both stages", "250 → 224 in stage 1, straight to 224 in stage 2",
        ("stage1.jitter", "stage2.jitter", "backbone.jitter"),
        "flipped at random in either case. The default's few scenes need jitter in stage 2 too", "train"),
    Row("Rare classes", "repeated, so that classes are balanced [recalled: in both stages]", UNKNOWN,
        ("stage1.balance", "stage2.balance"),
        "true: classes are drawn equally often. The default goes half as far: with true, `person`, 18 % of its "
        "objects, gets a twentieth of the draws and is hardly ever named", "train"),
    Row("Stage 2's examples", "proposals that overlap an object, IoU ≥ 0.5 [recalled]", UNKNOWN,
        ("stage2.iou", "stage2.misses"),
        "misses: so many of the default's examples are windows of inference that overlap no object; without them its "
        "short training leaves a network that sees objects everywhere", "train"),
    Row("Proposals", "Edge Boxes, about 2,000 an image", "MATLAB code with structured forests",
        ("proposals.boxes", "proposals.min_area", "proposals.step", "proposals.overlap"),
        "OpenCV's port. A scene is small", "proposals"),
    Row("Edges of the proposals", "those of Edge Boxes: structured forests", SAME,
        ("proposals.edges", "proposals.forest"),
        "OpenCV's structured forest by path or download; without it contours learned from the masks of train, or plain "
        "gradients. reports/proposals.json compares those at hand", "proposals"),
    Row("Learned contours", "none", "none",
        ("boundaries.optimizer", "boundaries.lr", "boundaries.weight_decay", "boundaries.decay", "boundaries.bias_lr",
         "boundaries.bias_decay", "boundaries.schedule", "boundaries.warmup", "boundaries.updates", "boundaries.batch",
         "boundaries.accumulate", "boundaries.bn_batches", "boundaries.bn_batch", "boundaries.widths",
         "boundaries.crop", "boundaries.zoom", "boundaries.scales"),
        "an addition: a U-Net of 337,906 parameters. Scenes must do with a minute", "boundaries"),
    Row("Windows", "the best 50", "boxes under 112 px on their shorter side are skipped first",
        ("inference.windows", "inference.min_side"), "112 px would skip every small object of a scene", "infer"),
    Row("Resizing", UNKNOWN, "inference: MATLAB's imresize, which smooths when shrinking [recalled]; training: OpenCV",
        ("inference.antialias",), "one way for training and inference: OpenCV's bilinear, without smoothing. true: "
        "windows, and scores on their way back, are smoothed where they shrink", "infer"),
    Row("Aggregation", "maximum (or mean) of the raw scores", "maximum over a zero base",
        "maximum over a zero base", "the release's", "infer"),
    Row("Cutting the score map", UNKNOWN, "one pixel off", "exact, tested", "a fault is not copied", "infer"),
    Row("FCN-8s", "its authors' weights", "padded to 500×500; their network pads 100 px",
        ("weights.fcn8s.source", "fcn.padding", "fcn.batch_norm", "fcn.dropout",
         "fcn.optimizer", "fcn.lr", "fcn.encoder_lr", "fcn.schedule", "fcn.warmup",
         "fcn.weight_decay", "fcn.decay", "fcn.bias_lr", "fcn.bias_decay", "fcn.updates", "fcn.batch", "fcn.accumulate",
         "fcn.bn_batches", "fcn.bn_batch", "inference.canvas"),
        "trained here, from DeconvNet's backbone and, in the default, with its training compute; fc6 padded, not the "
        "image. The published file: weights.fcn8s {source: caffe, path: …}, fcn.padding image, fcn.updates 0",
        "train_fcn"),
    Row("Evaluation", "VOC test, by its server", SAME, "val; void pixels ignored; one confusion matrix",
        "the authors' FCN-8s saw part of val: its clean set is seg11valid, 736 images, which this project does not "
        "report apart", "evaluate"),
    Row("Ensemble", "mean of the class probabilities", "product of the scores", ("ensemble.rule",),
        "the release's rule is reported beside it", "ensemble"),
    Row("CRF", "Gaussian: weight 3, 3 px; bilateral: weight 5, 20 px, 3 levels; 10 steps", SAME,
        ("crf.candidates", "crf.steps"), "a scene is a third of a photograph: dev decides among three kernels", "crf"),
    Row("CRF's normalisation", UNKNOWN, "none", ("crf.normalise",), "the release's", "crf"),
)  # fmt: skip


def value(settings: dict, key: str) -> object:
    return reduce(dict.__getitem__, key.split("."), settings)


def cell(row: Row, settings: dict) -> str:
    """The row's settings; keys that differ in their section alone and hold one value are shown once."""
    if isinstance(row.ours, str):
        return row.ours
    shown: dict[tuple[str, str], list[str]] = {}
    for key in row.ours:
        section, name = key.rsplit(".", 1)
        shown.setdefault((name, str(value(settings, key))), []).append(section)
    return "<br>".join(f"{'/'.join(sections)}.{name} {said}" for (name, said), sections in shown.items())


def page() -> str:
    paper, default = params.compose("voc2012"), params.compose("icons")
    lines = [
        "# Differences",
        "",
        "Generated from conf/ by `python -m deconvnet.differences`. [recalled]: said of the paper or the release "
        "without a stored source. `voc2012` is this project's profile for the paper's experiment, `icons` its default.",
        "",
        "| | paper | release | voc2012 | icons | why | notebook |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        link = f"[{row.notebook}](../notebooks/{row.notebook}.ipynb)"
        cells = (row.what, row.paper, row.release, cell(row, paper), cell(row, default), row.why, link)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
