"""The dense CRF on flat pictures, and the ensemble's two rules by hand."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from deconvnet.config import schema
from deconvnet.data import voc
from deconvnet.evaluation import metrics
from deconvnet.images import store
from deconvnet.inference import crf, ensemble

RELEASE = {"gaussian_weight": 3, "gaussian_xy": 3, "bilateral_weight": 5, "bilateral_xy": 20, "bilateral_rgb": 3}
FLAT = np.full((12, 16, 3), 120, np.uint8)


def kernel(**departures):
    return schema.Kernel(**(RELEASE | departures))


def confident(labels, sure=0.8, classes=3):
    """(classes, H, W) probabilities of `sure` for the label and equal ones for the others."""
    other = (1 - sure) / (classes - 1)
    return np.where(np.arange(classes)[:, None, None] == labels, sure, other).astype(np.float32)


# CRF


def test_unary_energies_are_minus_the_logarithm_and_finite():
    probabilities = np.array([[[0.5, 0.2, 0]], [[0.5, 0.8, 1]]])
    expected = -np.log([[0.5, 0.2, 1e-8], [0.5, 0.8, 1]])
    np.testing.assert_allclose(crf.unary(probabilities), expected, rtol=1e-5, atol=1e-6)


def test_the_order_in_memory_does_not_matter():
    probabilities = confident(np.arange(12 * 16).reshape(12, 16) % 3)
    other = np.moveaxis(np.moveaxis(probabilities, 0, -1).copy(), -1, 0)  # as a softmax over the last axis leaves them
    np.testing.assert_array_equal(*(crf.refine(FLAT, p, kernel(), 2, True) for p in (probabilities, other)))


@pytest.mark.parametrize("normalise", [False, True])
def test_refined_probabilities_are_probabilities(normalise):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)  # neither square nor even
    probabilities = softmax(rng.normal(0, 2, (21, 9, 14)), axis=0)
    probabilities[:, 0, 0] = np.eye(21)[3]  # exactly 0 and 1
    refined = crf.refine(image, probabilities, kernel(), 10, normalise)
    assert refined.shape == (21, 9, 14)
    assert np.isfinite(refined).all()
    assert (refined >= 0).all()
    np.testing.assert_allclose(refined.sum(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("departures", "normalise"),
    [({}, False), ({}, True), ({"gaussian_weight": 0}, False), ({"bilateral_weight": 0}, False)],
)
def test_a_single_wrong_pixel_is_repaired_by_both_kernels_and_by_either(departures, normalise):
    image, expected = FLAT.copy(), np.zeros((12, 16), int)
    image[:, 8:], expected[:, 8:] = 20, 1
    labels = expected.copy()
    labels[5, 3] = 2
    refined = crf.refine(image, confident(labels), kernel(**departures), 10, normalise)
    assert (refined.argmax(axis=0) == expected).all()


def test_without_kernels_nothing_changes():
    labels = np.random.default_rng(0).integers(0, 3, (12, 16))
    probabilities = confident(labels)
    same = crf.refine(FLAT, probabilities, kernel(gaussian_weight=0, bilateral_weight=0), 10, False)
    np.testing.assert_allclose(same, probabilities, rtol=1e-4)


def test_rows_and_columns_are_not_swapped():
    """A column of wrong labels across two horizontal bands of colour takes the bands' labels."""
    image, bands = FLAT.copy(), np.zeros((12, 16), int)
    image[6:], bands[6:] = 20, 1
    labels = bands.copy()
    labels[:, 7] = 1 - labels[:, 7]
    bilateral = kernel(gaussian_weight=0)
    assert (crf.refine(image, confident(labels), bilateral, 10, False).argmax(axis=0) == bands).all()


def test_normalisation_changes_the_result():
    """So it is a setting: without it, the kernels' weights grow with the number of neighbours."""
    labels = np.zeros((12, 16), int)
    labels[:, 8:] = 1  # a border inside one colour
    plain, normal = (crf.refine(FLAT, confident(labels, 0.6), kernel(), 10, flag) for flag in (False, True))
    assert not np.allclose(plain, normal, atol=0.01)


def mean_iou(pairs) -> float:
    return metrics.mean_iou(sum(metrics.confusion(*pair) for pair in pairs))


def test_pairwise_terms_are_made_once_for_each_image_and_kernel(tmp_path, monkeypatch):
    """And a label map once for each method and kernel, whatever names it gets and in whatever order."""
    for module, name in ((store, "SCORES"), (store, "PREDICTIONS"), (crf, "PREDICTIONS"), (crf, "VOC")):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where calls can be counted
    rng, names, calls = np.random.default_rng(0), ["a", "b"], Counter()
    root = tmp_path / "voc"
    voc.image_path(root, "a").parent.mkdir(parents=True)
    for name in names:
        for model in ("deconvnet", "fcn8s"):
            store.save_scores(model, name, rng.normal(0, 3, (21, 9, 14)))
        Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(voc.image_path(root, name))
        voc.save_mask(voc.labels_path(root, name), rng.integers(0, 21, (9, 14)))
    settings = schema.Crf(candidates=[kernel(), kernel(bilateral_xy=7)], iterations=2, normalise=False)

    def counted(function):
        return lambda *arguments: calls.update([function.__name__]) or function(*arguments)

    def made() -> tuple[int, int]:
        """Pairwise terms and label maps since the last call."""
        found = calls["build_crf"], calls["mean_field"]
        calls.clear()
        return found

    for function in (crf.build_crf, crf.mean_field):
        monkeypatch.setattr(crf, function.__name__, counted(function))
    methods = ["deconvnet", "edeconvnet"]
    measured = crf.compare_kernels(methods, names, settings, "mean", mean_iou)
    assert made() == (2 * 2, 2 * 2 * 2)  # for each image and kernel; and for each method
    first, second = settings.candidates
    crf.predict_all({f"{method}_crf": (method, second) for method in methods}, names, settings, "mean")
    assert made() == (2, 2 * 2)
    outputs = {"deconvnet_crf": ("deconvnet", first), "edeconvnet_crf": ("edeconvnet", second)}
    outputs |= {f"{method}_crf_paper": (method, first) for method in methods}
    crf.predict_all(outputs, names, settings, "mean")
    assert made() == (2 * 2, 2 * 3)  # DeconvNet's with the first kernel is made once for two names
    for method in methods:
        for i, candidate in enumerate(settings.candidates):
            pairs = []
            for name in names:
                probabilities = ensemble.method_probabilities(method, name, "mean")
                refined = crf.refine(voc.read_image(root, name), probabilities, candidate, 2, False)
                pairs.append((voc.read_labels(root, name), refined.argmax(axis=0)))
                for title in (title for title, pair in outputs.items() if pair == (method, candidate)):
                    assert (store.read_prediction(title, name) == pairs[-1][1]).all(), title
            assert measured[method][i] == mean_iou(pairs)


# Ensemble


def pixel(*scores):
    return np.array(scores, np.float32).reshape(-1, 1, 1)


def test_mean_of_probabilities_by_hand():
    first, second = np.log(pixel(3, 1)), np.log(pixel(1, 4))  # 3/4 1/4 and 1/5 4/5
    combined = ensemble.combine(first, second, "mean")
    assert combined.ravel().tolist() == pytest.approx([(3 / 4 + 1 / 5) / 2, (1 / 4 + 4 / 5) / 2], rel=1e-5)


def test_product_of_scores_by_hand():
    combined = ensemble.combine(pixel(2, 1), pixel(0.5, 3), "product")  # products 1 and 3
    assert combined.ravel().tolist() == pytest.approx([1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))], rel=1e-5)
    with pytest.raises(ValueError, match="mean or product, not median"):
        ensemble.combine(pixel(1, 2), pixel(1, 2), "median")


def test_a_negative_fcn_score_never_contributes_to_the_product():
    """Neither times a positive score, nor as one of two negative ones."""
    for score in (9, -9):
        combined = ensemble.combine(pixel(score, 1, 2), pixel(-5, 1, 0), "product")
        assert combined.ravel().tolist() == pytest.approx(softmax([0, 1, 0]), rel=1e-5)


def test_methods_read_the_scores_they_are_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SCORES", tmp_path / "scores")
    monkeypatch.setattr(store, "PREDICTIONS", tmp_path / "predictions")
    first, second = pixel(2, 0, 1), pixel(0, 3, 1)
    store.save_scores("deconvnet", "a", first)
    store.save_scores("fcn8s", "a", second)
    np.testing.assert_allclose(ensemble.method_probabilities("fcn8s", "a", "mean"), softmax(second, axis=0), rtol=1e-5)
    for rule, label in (("mean", 1), ("product", 2)):  # products 0, 0, 1
        expected = ensemble.combine(first, second, rule)
        np.testing.assert_allclose(ensemble.method_probabilities("edeconvnet", "a", rule), expected, rtol=1e-5)
        ensemble.predict_all("both", ["a"], rule)
        assert store.read_prediction("both", "a").tolist() == [[label]]
