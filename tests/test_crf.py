"""The dense CRF on flat pictures, and the ensemble's two rules by hand."""

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


def test_unary_of_ruled_out_classes_is_finite():
    probabilities = np.zeros((21, 2, 3), np.float32)
    probabilities[4] = 1
    energies = crf.unary(probabilities)
    assert energies.shape == (21, 6)
    assert np.isfinite(energies).all()
    assert energies[4] == pytest.approx(0)
    assert energies[3] == pytest.approx(-np.log(1e-8), rel=1e-5)


def test_unary_is_minus_the_logarithm():
    probabilities = np.array([[[0.5, 0.2]], [[0.5, 0.8]]])
    np.testing.assert_allclose(crf.unary(probabilities), -np.log([[0.5, 0.2], [0.5, 0.8]]), rtol=1e-6)


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


@pytest.mark.parametrize("normalise", [False, True])
def test_a_lone_wrong_pixel_in_a_flat_region_is_repaired(normalise):
    truth = np.zeros((12, 16), int)
    truth[:, 8:] = 1
    image = FLAT.copy()
    image[:, 8:] = 20
    labels = truth.copy()
    labels[5, 3] = 2
    refined = crf.refine(image, confident(labels), kernel(), 10, normalise).argmax(axis=0)
    assert (refined == truth).all()


@pytest.mark.parametrize("one", [{"gaussian_weight": 0}, {"bilateral_weight": 0}])
def test_either_kernel_repairs_it_alone(one):
    labels = np.zeros((12, 16), int)
    labels[5, 3] = 2
    assert (crf.refine(FLAT, confident(labels), kernel(**one), 10, False).argmax(axis=0) == 0).all()


def test_without_kernels_nothing_changes():
    labels = np.random.default_rng(0).integers(0, 3, (12, 16))
    probabilities = confident(labels)
    same = crf.refine(FLAT, probabilities, kernel(gaussian_weight=0, bilateral_weight=0), 10, False)
    np.testing.assert_allclose(same, probabilities, rtol=1e-4)


def test_rows_and_columns_are_not_swapped():
    """Horizontal stripes of colour hold horizontal stripes of labels, and pull crossing ones towards them."""
    image, stripes = FLAT.copy(), np.zeros((12, 16), int)
    image[6:], stripes[6:] = 20, 1
    labels = stripes.copy()
    labels[:, 7] = 1 - labels[:, 7]
    bilateral = kernel(gaussian_weight=0)
    assert (crf.refine(image, confident(labels), bilateral, 10, False).argmax(axis=0) == stripes).all()


def test_normalisation_changes_the_result():
    """The reason why it is a parameter: without it, weights grow with the number of neighbours."""
    labels = np.zeros((12, 16), int)
    labels[:, 8:] = 1  # the picture is flat: nothing holds this border
    plain, normal = (crf.refine(FLAT, confident(labels, 0.6), kernel(), 10, flag) for flag in (False, True))
    assert not np.allclose(plain, normal, atol=0.01)


def test_a_lattice_serves_one_method_after_the_other():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    several = [softmax(rng.normal(0, 2, (21, 9, 14)), axis=0) for _ in range(3)]
    field = crf.build_crf(image, 21, kernel(), False)
    for probabilities in several:
        alone = crf.refine(image, probabilities, kernel(), 5, False)
        np.testing.assert_array_equal(crf.mean_field(field, probabilities, 5), alone)


def test_a_lattice_is_made_once_for_each_image_and_kernel(tmp_path, monkeypatch):
    for module, name in ((store, "SCORES"), (store, "PREDICTIONS"), (crf, "PREDICTIONS"), (crf, "VOC")):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    monkeypatch.setenv("DECONVNET_CORES", "1")  # in this process, where it can be counted
    rng, names, rounds = np.random.default_rng(0), ["a", "b"], []
    for name in names:
        for model in ("deconvnet", "fcn8s"):
            store.save_scores(model, name, rng.normal(0, 3, (21, 9, 14)))
        (tmp_path / "voc" / voc.IMAGES).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(voc.image_path(tmp_path / "voc", name))
        voc.save_mask(voc.labels_path(tmp_path / "voc", name), rng.integers(0, 21, (9, 14)))
    settings = schema.Crf(candidates=[kernel(), kernel(bilateral_xy=7)], steps=2, normalise=False)
    plain = crf.build_crf
    monkeypatch.setattr(crf, "build_crf", lambda *arguments: rounds.append(1) or plain(*arguments))
    methods = ["deconvnet", "edeconvnet"]
    found = crf.compare_kernels(methods, names, settings, "mean")
    assert len(rounds) == 2 * 2  # not times the methods
    crf.predict_all(dict.fromkeys(methods, settings.candidates[1]), names, settings, "mean")
    assert len(rounds) == 2 * 2 + 2
    crf.predict_all(dict(zip(methods, settings.candidates, strict=True)), names, settings, "mean")
    for method, candidate, means in zip(methods, settings.candidates, found.values(), strict=True):
        total = 0
        for name in names:
            image, probabilities = (
                voc.read_image(tmp_path / "voc", name),
                ensemble.method_probabilities(method, name, "mean"),
            )
            labels = crf.refine(image, probabilities, candidate, 2, False).argmax(axis=0)
            assert (store.read_prediction(f"{method}_crf", name) == labels).all()
            total += metrics.confusion(voc.read_labels(tmp_path / "voc", name), labels)
        assert means[settings.candidates.index(candidate)] == metrics.mean_iou(total)


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


def test_a_negative_fcn_score_never_contributes_to_the_product():
    strong, none = ensemble.combine(pixel(9, 1, 2), pixel(-5, 1, 0), "product"), softmax([0, 1, 0])
    assert strong.ravel().tolist() == pytest.approx(none, rel=1e-5)
    both = ensemble.combine(pixel(-9, 1, 2), pixel(-5, 1, 0), "product")  # nor do two negative ones make a positive
    assert both.ravel().tolist() == pytest.approx(none, rel=1e-5)


@pytest.mark.parametrize("rule", ["mean", "product"])
def test_combined_probabilities_sum_to_one(rule):
    deconvnet, fcn8s = np.random.default_rng(0).normal(0, 5, (2, 21, 4, 5))
    combined = ensemble.combine(deconvnet, fcn8s, rule)
    assert combined.shape == (21, 4, 5)
    np.testing.assert_allclose(combined.sum(axis=0), 1, rtol=1e-6)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="not median"):
        ensemble.combine(pixel(1, 2), pixel(1, 2), "median")


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
