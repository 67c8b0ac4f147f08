"""The explorer of notebooks/explore.ipynb: one image, every setting of inference, about a second per change on a CPU.

The networks run once per image, and DeconvNet once more for a proposal whose layers are shown; what a slider changes is
computed again.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from deconvnet.config.errors import UserError
from deconvnet.config.schema import Kernel
from deconvnet.data import photograph, voc
from deconvnet.evaluation import decoder_energy
from deconvnet.images import crops
from deconvnet.inference import aggregate, crf, ensemble
from deconvnet.predict import Predictor, scenes
from deconvnet.report import figures, paper_figures


class Explorer:
    """The trained networks and one image: `open` it, then `show` and `layer`."""

    def __init__(self, max_proposals: int = 100):
        self.predictor = Predictor("edeconvnet_crf")
        self.settings, self.kernel = self.predictor.settings, self.predictor.kernel
        self.max_proposals = max_proposals
        self.root = scenes.val_folder(self.settings)
        self.names = voc.read_list(self.root, "val")
        self.layers = decoder_energy.layer_names(self.predictor.deconvnet)

    def open(self, source: str) -> "Explorer":
        """An image of val by its name, or a picture of yours by its path. Raises UserError."""
        if source in self.names:
            self.image, self.ground_truth = voc.read_image(self.root, source), voc.read_labels(self.root, source)
        elif Path(source).is_file():
            self.image, self.ground_truth = photograph.reduce(photograph.read(Path(source))), None
        else:
            raise UserError(
                f"Not found: '{source}' is neither an image of val ({self.names[0]} … {self.names[-1]}) nor a file."
            )
        self.source, self.shown = source, None
        more = self.settings.inference.model_copy(update={"num_proposals": self.max_proposals})
        self.proposals = aggregate.select_proposals(self.predictor.boxes(self.image), self.image.shape[:2], more)
        net, options = self.predictor.deconvnet, self.settings.inference
        (self.scores,) = aggregate.score_crops(
            net, [self.image], [self.proposals], options.batch_size, options.antialias
        )
        self.fcn_scores = aggregate.score_image(self.predictor.fcn, self.image, options.fcn_canvas).cpu().numpy()
        return self

    def segment(
        self, proposals: int = 50, aggregation: str = "maximum", rule: str = "mean", kernel: Kernel | None = None
    ) -> dict[str, np.ndarray]:
        """Label maps by both networks, the ensemble under `rule` and, with a kernel, the ensemble after the CRF."""
        options = self.image.shape[:2], aggregation, self.settings.inference.antialias
        scores = aggregate.aggregate(self.scores[:proposals], self.proposals[:proposals], *options).cpu().numpy()
        combined = ensemble.combine(scores, self.fcn_scores, rule)
        scores_of = {
            "FCN-8s": self.fcn_scores,
            f"DeconvNet, {aggregation} of {proposals}": scores,
            f"EDeconvNet, {rule}": combined,
        }
        if kernel is not None:
            s = self.settings.crf
            scores_of["EDeconvNet+CRF"] = crf.refine(self.image, combined, kernel, s.iterations, s.normalise)
        return {title: values.argmax(axis=0).astype(np.uint8) for title, values in scores_of.items()}

    def show(self, **choices) -> Figure:
        """The image, its ground truth if it has one, and what `segment` makes of the choices; below, where it errs."""
        found = self.segment(**choices)
        ground_truth = {} if self.ground_truth is None else {"ground truth": self.ground_truth}
        pictures = {self.source[-24:]: self.image, **ground_truth, **found}
        rows, blank = [list(pictures.values())], np.full_like(self.image, 255)
        if ground_truth:
            overlays = [
                paper_figures.overlay_errors(self.image, self.ground_truth, labels) for labels in found.values()
            ]
            rows.append([blank, blank, *overlays])
        figure = figures.grid(rows, list(pictures))
        figures.add_legend(figure, [*ground_truth.values(), *found.values()])
        if ground_truth:
            paper_figures.add_error_legend(figure)
        return figure

    def layer(self, name: str, proposal: int = 0, channels: int = 7) -> Figure:
        """The channels of a decoder layer with the most energy, for one of the proposals: 0 is the best; if there
        are fewer, the last one.
        """
        proposal = min(proposal, len(self.proposals) - 1)
        if self.shown is None or self.shown[0] != proposal:
            net, box = self.predictor.deconvnet, self.proposals[proposal]
            picture = crops.crop_boxes(self.image, box[None], net.size)[0].permute(1, 2, 0).byte().numpy()
            self.shown = proposal, picture, decoder_energy.forward(net, picture[None])[0]
        _, picture, of_layer = self.shown
        maps = of_layer[name][0]
        strongest = maps.square().sum(dim=(1, 2)).argsort(descending=True)[:channels]
        figure, axes = plt.subplots(1, channels + 1, figsize=(1.6 * (channels + 1), 1.9), layout="constrained")
        axes[0].imshow(picture)
        axes[0].set_title(f"proposal {proposal}", fontsize=8)
        for axis, channel in zip(axes[1:], strongest.tolist(), strict=False):
            axis.imshow(maps[channel].cpu(), cmap="jet")
            axis.set_title(f"{name}, {channel}", fontsize=8)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
        return figure


def kernel_of(base: Kernel, gaussian: float | None, bilateral: float | None) -> Kernel | None:
    """The CRF with other strengths, None keeping what it has; no CRF if both are 0."""
    gaussian = base.gaussian_weight if gaussian is None else gaussian
    bilateral = base.bilateral_weight if bilateral is None else bilateral
    if gaussian == bilateral == 0:
        return None
    return base.model_copy(update={"gaussian_weight": gaussian, "bilateral_weight": bilateral})


def panel(explorer: Explorer):
    """Sliders over the settings, for JupyterLab; None, with a line that says so, where ipywidgets is missing."""
    try:
        import ipywidgets as w
    except ImportError:
        print("ipywidgets is not installed: change the numbers in the cells below and run them.")
        return None
    base, options = explorer.kernel, {"continuous_update": False}
    controls = {
        "source": w.Combobox(value=explorer.source, options=explorer.names, description="image", **options),
        "proposals": w.IntSlider(
            explorer.settings.inference.num_proposals, 1, explorer.max_proposals, description="proposals", **options
        ),
        "aggregation": w.Dropdown(options=aggregate.AGGREGATION_RULES, description="aggregation"),
        "rule": w.Dropdown(options=["mean", "product"], description="ensemble"),
        "gaussian": w.FloatSlider(base.gaussian_weight, min=0, max=10, description="CRF, near", **options),
        "bilateral": w.FloatSlider(base.bilateral_weight, min=0, max=10, description="CRF, colour", **options),
        "layer": w.Dropdown(options=explorer.layers, value=explorer.layers[-1], description="layer"),
        "proposal": w.IntSlider(0, 0, explorer.max_proposals - 1, description="proposal", **options),
    }

    result, layers, message = w.Image(format="png"), w.Image(format="png"), w.Label()

    def update(_=None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        source, layer, proposal = (chosen.pop(name) for name in ("source", "layer", "proposal"))
        kernel = kernel_of(base, chosen.pop("gaussian"), chosen.pop("bilateral"))
        message.value = "…"
        try:
            if source != explorer.source:
                explorer.open(source)
            result.value = png(explorer.show(kernel=kernel, **chosen))
            layers.value = png(explorer.layer(layer, proposal))
        except UserError as error:
            message.value = str(error)
        else:
            message.value = ""

    for control in controls.values():
        control.observe(update, "value")
    update()
    return w.VBox([w.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), message, result, layers])


def png(figure: Figure) -> bytes:
    """A figure as a picture; the figure is closed, so that moving sliders does not pile figures up."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    plt.close(figure)
    return picture.getvalue()
