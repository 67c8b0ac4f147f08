"""What the report says of each figure, and which notebook made it."""

from dataclasses import dataclass

NOTEBOOKS = {  # executed copy → its source
    "data": "data", "boundaries": "boundaries", "proposals": "proposals", "backbone": "backbone",
    "train_stage1": "train", "train_stage2": "train", "train_fcn": "train_fcn", "infer_deconvnet": "infer",
    "infer_fcn8s": "infer", "ensemble": "ensemble", "crf": "crf", "evaluate": "evaluate", "windows": "windows",
    "decoder": "decoder", "claims": "claims", "figures": "figures",
}  # fmt: skip


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


FIGURE_LIST = [
    Figure("claims", "Effects and intervals", "Each claim's effect with its 95 % interval; where the paper gives one, "
           "its effect as a star.", "claims", "claims"),
    Figure("windows", "C4, more proposals", "Mean IoU of DeconvNet against the number of windows, best first and "
           "largest first, with 95 % intervals.", "claims", "claims"),
    Figure("sizes", "C5, objects by size", "Pixel recall and IoU of single objects by size, with 95 % intervals.",
           "claims", "claims"),
    Figure("layers", "C8, energy on the target", "The share of each decoder layer's energy that lies on the object in "
           "the centre of its window, against the object's share of the area.", "claims", "claims"),
    Figure("calibration", "Calibration", "How often the label is right against its probability. The CRF takes the "
           "scores at their word. A first point below 0.1 are pixels where no class has a score above 0, as where no "
           "window lies: 21 equal probabilities, 1/21, called background.", "claims", "claims"),
    Figure("figure1", "Figure 1, the limits of FCN", "(a) Large objects that FCN-8s gives two names: part of them "
           "their class, another part another object's; (b) images with the most small objects of which it finds no "
           "pixel. Picked by these rules.", "figures"),
    Figure("figure2", "Figure 2, the architecture", "Drawn from the network object: each slab's height grows with the "
           "square root of its map's side, its width with the logarithm of its channels, whose number stands below.",
           "figures"),
    Figure("figure3", "Figure 3, unpooling and deconvolution", "Pooling keeps switches, unpooling uses them; "
           "convolution sums 3×3 inputs, deconvolution spreads each input over 3×3 outputs. The numbers are torch's.",
           "figures"),
    Figure("figure4", "Figure 4, inside the decoder", "Activations for one bicycle, the largest of val, from the "
           "coarsest deconvolution to the last; the map of each layer with the most energy on the object.", "decoder"),
    Figure("figure5", "Figure 5, class probabilities", "The probability of dog and of bicycle by both networks, where "
           "val has the largest of each; dark is 0, yellow 1.", "figures"),
    Figure("figure6", "Figure 6, instance-wise prediction", "The result as windows are added from the largest to the "
           "smallest, in the images of val with the most objects.", "windows"),
    Figure("figure7", "Figure 7, results", "Images of val by the mean IoU of single images: (a) DeconvNet furthest "
           "above FCN-8s, (b) furthest below, (c) the ensemble furthest above both.", "figures"),
    Figure("overlays", "Overlays", "The first images of val, with the labels half over them.", "figures"),
    Figure("per_class", "IoU of each class", "The five methods, class by class.", "evaluate"),
]  # fmt: skip
