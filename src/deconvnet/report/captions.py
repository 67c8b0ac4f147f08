"""Captions of figures and tables: where a result comes from, and what each figure shows."""

from dataclasses import dataclass

from deconvnet.config.schema import SOLVERS, Params


def caption(
    settings: Params,
    split: str,
    images: int,
    experiment: str,
    training: dict[str, dict[str, int]],
    inference: dict[str, float],
) -> str:
    """Where a result comes from: data set, split, seeds, experiment id; and what it cost: the FLOP of each training in
    reports/compute, and those of both networks' inference on one image.
    """
    deconvnet = (training["stage1"]["flops"] + training["stage2"]["flops"]) / 1e12
    seeds = ", ".join(str(getattr(settings, name).seed) for name in SOLVERS)
    edges = {"forest": "the structured forest", "learned": "learned boundaries", "gradient": "gradient edges"}
    return (
        f"Profile {settings.profile}: {settings.data.source} {split}, {images} images; seeds {seeds} (boundaries, "
        f"backbone, stage 1, stage 2, FCN-8s); experiment {experiment}. "
        f"Edge Boxes on {edges[settings.proposals.edges]}. "
        f"Training compute, forward and backward, backbone excluded: DeconvNet {deconvnet:.1f} TFLOP, "
        f"FCN-8s {training['fcn8s']['flops'] / 1e12:.1f} TFLOP. Inference on an image, forward: DeconvNet "
        f"{inference['deconvnet'] / 1e9:,.2f} GFLOP ({settings.inference.num_proposals} proposals), FCN-8s "
        f"{inference['fcn8s'] / 1e9:,.2f} GFLOP: {inference['deconvnet'] / inference['fcn8s']:.1f} times as many."
    )


def short_caption(settings: Params, split: str, images: int, experiment: str, trainings: int = 1) -> str:
    """The same in a line, for figures of this training, or of so many with different seeds."""
    seeds = ", ".join(str(getattr(settings, name).seed) for name in SOLVERS)
    seeds = f"seeds {seeds}" if trainings == 1 else f"{trainings} trainings with different seeds"
    return f"{settings.profile}: {settings.data.source} {split}, {images} images; {seeds}; experiment {experiment}"


@dataclass(frozen=True)
class Figure:
    """A figure of reports/figures: what it is called, what it shows, and the notebook that drew it."""

    file: str
    title: str
    text: str
    notebook: str
    section: str = "figures"

    @property
    def alt(self) -> str:
        return f"{self.title}: {self.text.split('. ')[0].rstrip('.')}"


FIGURES = [
    Figure("claims", "Effects and intervals", "Each claim's effect with its 95 % interval, or its range where one side "
           "was trained once; below it a dot for each training; where the paper gives one, its effect as a star. A "
           "panel for each unit.", "claims", "claims"),
    Figure("proposals", "C4, more proposals", "Left: mean IoU of DeconvNet against the number of proposals, best first "
           "and largest first, with 95 % intervals, and that of FCN-8s, which has none. Right: what the proposals "
           "allow, the share of objects that one of them covers with IoU ≥ 0.5.", "claims", "claims"),
    Figure("sizes", "C5, objects by size", "Pixel recall and IoU of single objects by size, with 95 % intervals.",
           "claims", "claims"),
    Figure("layers", "C8, what each layer knows of the object", "The share of a decoder layer's energy that lies on "
           "the object in the centre of its crop, less the share of a map that is the same for every object. Unpooled "
           "maps and deconvolutions in turn, from the coarsest to the last.", "claims", "claims"),
    Figure("calibration", "Calibration", "Reliability diagram: accuracy against probability. The CRF uses these "
           "probabilities. A first point below 0.1 is of pixels where no class has a score above 0, for instance where "
           "there is no proposal: 21 equal probabilities, 1/21, labelled background.", "claims", "claims"),
    Figure("method", "The method on one image", "Boundaries, proposals, what DeconvNet says of three of them, the "
           "maximum of all, with FCN-8s, after the CRF. The image of val with several objects where the last has the "
           "highest mean IoU.", "figures"),
    Figure("figure1", "Figure 1, the limits of FCN", "(a) Large objects that FCN-8s labels inconsistently: part of "
           "them as their class, part as another object's; (b) images with the most small objects of which it finds no "
           "pixel. Selected by these rules.", "figures"),
    Figure("figure2", "Figure 2, the architecture", "The paper's network and this one, drawn from the network objects, "
           "each on its own scale: block height ∝ √(side of the map), width ∝ log(channels); the number of channels is "
           "printed below. Arrows: the switches of each pooling go to its unpooling.", "figures"),
    Figure("figure3", "Figure 3, unpooling and deconvolution", "Pooling keeps switches, unpooling uses them; "
           "convolution sums 3×3 inputs, deconvolution spreads each input over 3×3 outputs. The numbers are torch's.",
           "figures"),
    Figure("figure4", "Figure 4, inside the decoder", "Activations for the largest bicycle of val (or the largest "
           "object, if there is none), from the coarsest deconvolution to the last: of each layer the channel with the "
           "most energy on the object less the energy off it, and below it the median channel by that, on one scale. "
           "Energy is the sum of the squared activations. The paper shows the most representative channel of each, and "
           "does not define that.", "decoder"),
    Figure("figure5", "Figure 5, class probabilities", "The probability of dog and of bicycle by both networks, where "
           "val has the largest of each; dark is 0, yellow 1.", "figures"),
    Figure("figure6", "Figure 6, instance-wise prediction", "The result as proposals are added from the largest to the "
           "smallest, in the images of val with several objects whose mean IoU is nearest to the median.",
           "proposal_study"),
    Figure("figure7", "Figure 7, results", "Images of val by the mean IoU of single images: (a) DeconvNet furthest "
           "above FCN-8s, (b) furthest below, (c) the ensemble furthest above both, (d) drawn at random of the others."
           " Mean IoU is that of the image.", "figures"),
    Figure("figure7_errors", "Where the errors are", "The images of figure 7: pixels missed, invented and confused.",
           "figures"),
    Figure("errors", "Kinds of error", "Pixels missed (an object predicted as background), invented (background "
           "predicted as an object) and confused (an object predicted as another class), as shares of all pixels; "
           "precision and recall of the objects' pixels, and the mean IoU of objects; with 95 % intervals, and a dot "
           "for each training.", "results"),
    Figure("diagnosis", "Which part loses it", "What DeconvNet's mean IoU gains if one part of inference is given by "
           "the ground truth, or done in another way; with 95 % intervals, and a dot for each training.", "results"),
    Figure("failures", "Failures", "The images of val where EDeconvNet+CRF has the lowest mean IoU, and how it errs "
           "there.", "figures"),
    Figure("overlays", "Images that nobody selected", "The first images of val. Mean IoU is that of the image.",
           "figures"),
    Figure("per_class", "DeconvNet against FCN-8s, class by class", "IoU of each class by DeconvNet less that by "
           "FCN-8s, the lowest first, with 95 % intervals, and a dot for each training.", "results"),
]  # fmt: skip
