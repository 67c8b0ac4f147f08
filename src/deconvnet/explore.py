"""What notebooks/explore.ipynb does: one image, every setting of inference, in about a second a change on a CPU.

What is slow (the networks on all windows) is done once for an image; what a slider moves is done anew.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deconvnet import activations, crf, cutting, ensemble, figures, inference, paths, voc, windows
from deconvnet.errors import UserError
from deconvnet.params import Kernel
from deconvnet.predict import Predictor, read_photograph
from deconvnet.proposals import load_proposals

LARGEST = 500  # px; a larger photograph is made smaller, as VOC's are


class Explorer:
    """The trained networks, and one image that they have seen: `open` it, then `show` and `layer`."""

    def __init__(self, most: int = 100):
        self.predictor = Predictor("edeconvnet_crf")
        self.settings, self.kernel = self.predictor.settings, self.predictor.kernel
        self.most = most
        self.names = voc.read_list(paths.VOC, "val")
        self.layers = activations.layer_names(self.predictor.deconvnet)

    def open(self, source: str) -> "Explorer":
        """An image of val by its name, or a picture of yours by its path. Raises UserError."""
        if source in self.names:
            self.image, self.truth = voc.read_image(paths.VOC, source), voc.read_labels(paths.VOC, source)
            proposals = load_proposals("val")[source]
        elif Path(source).is_file():
            image = Image.fromarray(read_photograph(Path(source)))
            image.thumbnail((LARGEST, LARGEST))
            self.image, self.truth = np.array(image), None
            proposals = self.predictor.boxes(self.image)
        else:
            raise UserError(f"{source} is no image of val and no file: val has {self.names[0]} … {self.names[-1]}.")
        self.source = source
        more = self.settings.inference.model_copy(update={"windows": self.most})
        self.windows = inference.choose_windows(proposals, self.image.shape[:2], more)
        net, options = self.predictor.deconvnet, self.settings.inference
        (self.scores,) = inference.scores_of(net, [self.image], [self.windows], options.batch, options.antialias)
        self.whole = inference.score_image(self.predictor.fcn, self.image, options.canvas).cpu().numpy()
        return self

    def segment(
        self, proposals: int = 50, aggregation: str = "maximum", rule: str = "mean", kernel: Kernel | None = None
    ) -> dict[str, np.ndarray]:
        """Label maps by both networks, the ensemble under `rule` and, with a kernel, the ensemble after the CRF."""
        options = self.image.shape[:2], aggregation, self.settings.inference.antialias
        scores = windows.aggregate(self.scores[:proposals], self.windows[:proposals], *options).cpu().numpy()
        together = ensemble.combine(scores, self.whole, rule)
        found = {
            "FCN-8s": self.whole,
            f"DeconvNet, {aggregation} of {proposals}": scores,
            f"EDeconvNet, {rule}": together,
        }
        if kernel is not None:
            s = self.settings.crf
            found["EDeconvNet+CRF"] = crf.refine(self.image, together, kernel, s.steps, s.normalise)
        return {title: values.argmax(axis=0).astype(np.uint8) for title, values in found.items()}

    def show(self, **choices) -> Figure:
        """The image, its truth if it has one, and what `segment` makes of the choices."""
        found = self.segment(**choices)
        truth = {} if self.truth is None else {"truth": self.truth}
        pictures = {self.source[-24:]: self.image, **truth, **found}
        figure = figures.grid([list(pictures.values())], list(pictures))
        figures.add_legend(figure, [*truth.values(), *found.values()])
        return figure

    def layer(self, name: str, window: int = 0, channels: int = 7) -> Figure:
        """The channels of a decoder layer with the most energy, for one of the windows: 0 is the best proposal; where
        there are fewer, the last one.
        """
        window = min(window, len(self.windows) - 1)
        box = self.windows[window]
        net = self.predictor.deconvnet
        picture = cutting.cut_windows(self.image, box[None], net.size)[0].permute(1, 2, 0).byte().numpy()
        maps = activations.forward(net, picture[None])[name][0]
        strongest = maps.square().sum(dim=(1, 2)).argsort(descending=True)[:channels]
        figure, axes = plt.subplots(1, channels + 1, figsize=(1.6 * (channels + 1), 1.9), layout="constrained")
        axes[0].imshow(picture)
        axes[0].set_title(f"window {window}", fontsize=8)
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
            explorer.settings.inference.windows, 1, explorer.most, description="proposals", **options
        ),
        "aggregation": w.Dropdown(options=windows.RULES, description="windows by"),
        "rule": w.Dropdown(options=["mean", "product"], description="ensemble"),
        "gaussian": w.FloatSlider(base.gaussian_weight, min=0, max=10, description="CRF, near", **options),
        "bilateral": w.FloatSlider(base.bilateral_weight, min=0, max=10, description="CRF, colour", **options),
        "layer": w.Dropdown(options=explorer.layers, value=explorer.layers[-1], description="layer"),
        "window": w.IntSlider(0, 0, explorer.most - 1, description="window", **options),
    }

    result, inside, said = w.Image(format="png"), w.Image(format="png"), w.Label()

    def update(_=None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        source, layer, window = (chosen.pop(name) for name in ("source", "layer", "window"))
        kernel = kernel_of(base, chosen.pop("gaussian"), chosen.pop("bilateral"))
        said.value = "…"
        try:
            if source != explorer.source:
                explorer.open(source)
            result.value = png(explorer.show(kernel=kernel, **chosen))
            inside.value = png(explorer.layer(layer, window))
        except UserError as error:
            said.value = str(error)
        else:
            said.value = ""

    for control in controls.values():
        control.observe(update, "value")
    update()
    return w.VBox([w.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), said, result, inside])


def png(figure: Figure) -> bytes:
    """A figure as a picture; the figure is closed, so that moving sliders does not pile figures up."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    plt.close(figure)
    return picture.getvalue()
