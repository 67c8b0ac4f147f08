"""The solver by hand: void in the loss, rates, parameter groups, accumulation, batch-norm statistics, FLOPs."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deconvnet import DeconvNet
from deconvnet.config import machine, params
from deconvnet.data.voc import VOID
from deconvnet.training import batch_norm, data_loading, loop
from deconvnet.training.solver import lr_factor, make_optimizer, mean_cross_entropy


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DECONVNET_DEVICE", "cpu")
    monkeypatch.setenv("DECONVNET_WORKERS", "0")
    monkeypatch.setenv("DECONVNET_PRECISION", "32-true")


def solver(**departures):
    """The default profile's stage 1 with plain SGD: no momentum, decay or warm-up."""
    plain = {
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "bias_lr_factor": 1.0,
        "encoder_lr_factor": 1.0,
    }
    rest = {"schedule": "step", "step": 1000, "warmup": 0, "iterations": 1, "micro_batches": 1}
    settings = params.validate(params.compose("icons"), "icons").stage1
    return settings.model_copy(update=plain | rest | departures)


def batch(images=4, side=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images, side, side), generator=generator)
    return torch.rand(images, 3, side, side, generator=generator), labels


# Loss


def test_loss_is_the_mean_over_pixels_that_are_not_void():
    odds = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 99.0], [1.0, 4.0]])  # pixel, class
    scores = odds.log().T.view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 1], [VOID, 0]]])
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 5)) / 3
    assert mean_cross_entropy(scores, labels).item() == pytest.approx(expected, rel=1e-5)


def test_void_pixels_get_no_gradient():
    scores = torch.randn(1, 2, 2, 2, requires_grad=True)
    mean_cross_entropy(scores, torch.tensor([[[0, 1], [VOID, 0]]])).backward()
    assert (scores.grad[:, :, 1, 0] == 0).all()
    assert (scores.grad[:, :, 0] != 0).all()


def test_the_loss_of_maps_as_convolutions_leave_them_copies_none():
    scores = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 5))
    with torch.profiler.profile(record_shapes=True, acc_events=True) as seen:
        mean_cross_entropy(scores, labels).backward()
    copied = [e for e in seen.events() if e.name == "aten::copy_" and math.prod(e.input_shapes[0]) >= scores.numel()]
    assert not copied
    assert scores.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_of_void_costs_nothing():
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = mean_cross_entropy(scores, torch.full((2, 4, 4), VOID))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


def test_label_k_is_channel_k():
    for label in range(21):
        scores = torch.full((1, 21, 1, 1), -50.0)
        scores[0, label] = 50
        assert mean_cross_entropy(scores, torch.full((1, 1, 1), label)).item() == pytest.approx(0, abs=1e-6)


# Rate


def test_step_schedule_drops_to_a_tenth():
    settings = solver(schedule="step", step=9000, iterations=20000)
    factors = [lr_factor(step, settings) for step in (0, 8999, 9000, 17999, 18000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_schedule_with_warm_up():
    settings = solver(schedule="cosine", warmup=4, iterations=12)
    factors = [lr_factor(step, settings) for step in (0, 1, 3, 4, 6, 8, 12)]
    half = math.sqrt(0.5)
    assert factors == pytest.approx([0.2, 0.4, 0.8, 1, (1 + half) / 2, 0.5, 0])


def test_step_schedule_with_warm_up():
    settings = solver(schedule="step", step=10, warmup=3)
    assert [lr_factor(step, settings) for step in (0, 2, 3, 10)] == pytest.approx([0.25, 0.75, 1, 0.1])


# Optimizer


def options_of(net, settings):
    """Name of each parameter → (rate, decay)."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = make_optimizer(net, settings).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_parameter_groups_follow_the_release():
    net = DeconvNet(blocks=((2, 1),), fc=2, size=4)
    options = options_of(
        net, solver(lr=0.01, weight_decay=5e-4, bias_lr_factor=2.0, bias_decay=False, encoder_lr_factor=0.5)
    )
    assert set(options) == dict(net.named_parameters()).keys()
    assert options["fc6_deconv.conv.weight"] == options["score.weight"] == (0.01, 5e-4)
    assert options["fc6_deconv.conv.bias"] == options["score.bias"] == (0.02, 0)
    assert options["fc6_deconv.bn.weight"] == options["fc6_deconv.bn.bias"] == (0.01, 5e-4)
    assert options["encoder.fc6.conv.weight"] == options["encoder.blocks.0.conv1_1.bn.bias"] == (0.005, 5e-4)
    assert options["encoder.fc6.conv.bias"] == (0.01, 0)


def test_biases_may_be_decayed():
    net = DeconvNet(blocks=((2, 1),), fc=2, size=4)
    options = options_of(net, solver(lr=0.01, weight_decay=5e-4, bias_lr_factor=1.0, bias_decay=True))
    assert set(options.values()) == {(0.01, 5e-4)}


def test_frozen_parameters_are_left_out():
    net = nn.Conv2d(3, 2, 1)
    net.weight.requires_grad_(False)
    assert list(options_of(net, solver())) == ["bias"]


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_momentum_reaches_the_optimizer(name, kind):
    optimizer = make_optimizer(nn.Conv2d(3, 2, 1), solver(optimizer=name, momentum=0.7))
    assert type(optimizer) is kind
    assert (optimizer.defaults["momentum"] if name == "sgd" else optimizer.defaults["betas"][0]) == 0.7


# Training


def test_accumulated_parts_are_averaged():
    """Parts with unequal numbers of void pixels: the mean of the parts' means is not the mean over all pixels."""
    images, labels = batch()
    labels[:2, :3] = VOID
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 1)
    start = net.weight.detach().clone()
    first, second = (F.cross_entropy(net(images[i]), labels[i], ignore_index=VOID) for i in ([0, 1], [2, 3]))
    by_hand = (first + second) / 2
    (gradient,) = torch.autograd.grad(by_hand, net.weight)
    curve = loop.train(net, [(images, labels)], solver(lr=0.5, micro_batches=2))
    torch.testing.assert_close(net.weight.detach(), start - 0.5 * gradient)
    assert curve["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_five_updates_of_two_layers_by_the_rule_of_caffe():
    """v ← μv + η·lr_mult·(g + λ·decay_mult·w), w ← w − v: biases twice the rate and undecayed, g the mean of 8 passes.

    All arithmetic is written out here in float64, the gradients of the two layers included.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
    w = {
        name: value.detach().double().numpy().reshape(len(value), -1).squeeze()
        for name, value in net.named_parameters()
    }
    v = {name: np.zeros_like(value) for name, value in w.items()}
    steps = [batch(images=16, seed=seed) for seed in range(5)]
    for _, labels in steps:
        labels[::3, 1] = VOID
    settings = solver(
        lr=0.05, momentum=0.9, weight_decay=0.02, bias_lr_factor=2.0, bias_decay=False, iterations=5, micro_batches=8
    )
    loop.train(net, steps, settings)

    for images, labels in steps:
        gradient = {name: np.zeros_like(value) for name, value in w.items()}
        for part in range(8):
            two = slice(2 * part, 2 * part + 2)
            x = images[two].double().permute(0, 2, 3, 1).reshape(-1, 3).numpy()
            truth = labels[two].reshape(-1).numpy()
            x, truth = x[truth != VOID], truth[truth != VOID]
            hidden = x @ w["0.weight"].T + w["0.bias"]
            scores = np.exp(hidden @ w["1.weight"].T + w["1.bias"])
            error = (scores / scores.sum(axis=1, keepdims=True) - np.eye(3)[truth]) / len(truth)
            gradient["1.weight"] += error.T @ hidden / 8
            gradient["1.bias"] += error.sum(axis=0) / 8
            gradient["0.weight"] += (error @ w["1.weight"]).T @ x / 8
            gradient["0.bias"] += (error @ w["1.weight"]).sum(axis=0) / 8
        for name in w:
            rate, decay = (0.1, 0.0) if name.endswith("bias") else (0.05, 0.02)
            v[name] = 0.9 * v[name] + rate * (gradient[name] + decay * w[name])
            w[name] = w[name] - v[name]

    for name, value in net.named_parameters():
        np.testing.assert_allclose(value.detach().numpy().reshape(w[name].shape), w[name], atol=1e-6, rtol=0)


def test_gradients_are_cleared_between_updates():
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 1)
    copy = nn.Conv2d(3, 3, 1)
    copy.load_state_dict(net.state_dict())
    steps = [batch(seed=seed) for seed in range(3)]
    loop.train(net, steps, solver(iterations=3))
    for images, labels in steps:
        gradients = torch.autograd.grad(F.cross_entropy(copy(images), labels), list(copy.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(copy.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    torch.testing.assert_close(net.weight, copy.weight)


def test_batch_norm_sees_one_part_at_a_time():
    """Release: 8 passes of 8 images; a part's scores depend on that part alone."""
    images, labels = batch()
    images[2:] += 10
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    seen = []
    net[0].register_forward_hook(lambda _, __, out: seen.append(out.mean().item()))
    loop.train(net, [(images, labels)], solver(micro_batches=2))
    assert seen == pytest.approx([0, 0], abs=1e-4)


def parted(monkeypatch, at_once):
    """Three iterations in four parts of unequal void, `at_once` through the network: curve, state, size of calls."""
    monkeypatch.setenv("DECONVNET_PARTS", str(at_once))
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)]
    net, calls = nn.Sequential(*layers), []
    net[0].register_forward_hook(lambda _, __, out: calls.append(len(out)))
    steps = [batch(images=8, seed=seed) for seed in range(3)]
    for images, labels in steps:
        images *= torch.linspace(1, 4, 8).view(-1, 1, 1, 1)  # parts whose statistics differ
        labels[:3, :3] = VOID
    curve = loop.train(net, steps, solver(iterations=3, micro_batches=4))
    assert "forward" not in vars(net[1])  # batch norm is its own again
    return curve, net.state_dict(), calls


@pytest.mark.parametrize(("at_once", "sizes"), [(2, [4] * 6), (3, [6, 2] * 3), (4, [8] * 3), (99, [8] * 3)])
def test_parts_at_once_train_as_one_by_one(monkeypatch, at_once, sizes):
    curve, state, calls = parted(monkeypatch, 1)
    assert calls == [2] * 12
    other_curve, other_state, other_calls = parted(monkeypatch, at_once)
    assert other_calls == sizes
    torch.testing.assert_close(other_state, state, rtol=1e-4, atol=1e-6)  # running statistics too
    assert list(other_curve["loss"]) == pytest.approx(list(curve["loss"]), rel=1e-5)


def test_norms_by_part_leave_each_its_statistics():
    norm, x = nn.BatchNorm2d(1), torch.tensor([0.0, 2, 10, 14]).view(4, 1, 1, 1)
    with batch_norm.ghost_batch_norm(norm, 2):
        assert norm(x).flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-4)
    spread = x.var(correction=0).sqrt()
    torch.testing.assert_close(norm(x), (x - 6.5) / spread, atol=1e-4, rtol=0)


def test_parts_at_once_by_default(monkeypatch):
    monkeypatch.delenv("DECONVNET_PARTS", raising=False)
    assert machine.micro_batches_at_once(8) == 1
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    found = {}
    for precision in machine.PRECISIONS:
        monkeypatch.setenv("DECONVNET_PRECISION", precision)
        found[precision] = machine.micro_batches_at_once(8)
    assert found == {"32-true": 1, "tf32": 8, "bf16-mixed": 8}
    monkeypatch.setenv("DECONVNET_PARTS", "3")
    assert (machine.micro_batches_at_once(8), machine.micro_batches_at_once(2)) == (3, 2)


@pytest.mark.parametrize(("workers", "itself"), [("0", True), ("3", True), ("4", False)])
def test_a_gpu_cuts_its_own_crops_where_processes_are_few(monkeypatch, workers, itself):
    class Kept:
        images, cut = property(lambda self: self), "a way to cut on a device"
        fits, on, __len__ = lambda *_: True, lambda *_: "by itself", lambda _: 5

    monkeypatch.setattr(loop, "DataLoader", lambda *_, **__: "by processes")
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setenv("DECONVNET_WORKERS", workers)
    assert data_loading.loader(Kept()) == ("by itself" if itself else "by processes")


def test_the_curve_reports_mean_losses_and_watches_dev():
    net = nn.Conv2d(3, 3, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    rows = []
    curve = loop.train(
        net,
        [batch(seed=seed) for seed in range(6)],
        solver(lr=1e-12, iterations=6, micro_batches=2),
        watch=[batch(seed=9)],
        log=lambda step, row: rows.append(row),
        points=2,
    )
    assert curve["step"].tolist() == [3, 6]
    assert curve["loss"].tolist() == pytest.approx([math.log(3)] * 2, rel=1e-5)
    assert curve["dev_loss"].iloc[-1] == pytest.approx(math.log(3), rel=1e-5)
    assert rows == [{k: v for k, v in row.items() if v == v} for row in curve.to_dict("records")]


def test_the_rate_drops_when_dev_stops_improving(monkeypatch):
    """A look every 2 iterations; accuracies .5 .6 .6 .7 .65: drops after the third and the fifth look."""
    looks, drops = iter([0.5, 0.6, 0.6, 0.7, 0.65]), []
    monkeypatch.setattr(loop, "evaluate_batches", lambda model, watch: (1.0, next(looks, 0.9)))
    monkeypatch.setattr(loop, "lr_factor", lambda step, settings, n: drops.append(n) or lr_factor(step, settings, n))
    settings = solver(schedule="plateau", look=2, iterations=12)
    curve = loop.train(nn.Conv2d(3, 3, 1, bias=False), [batch()] * 12, settings, watch=[batch()], points=4)
    assert drops == [0] * 6 + [1] * 4 + [2] * 3  # the rate of each update, and of the one that would follow
    assert curve["rate"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.001])  # of iterations 3, 6, 9, 12
    with pytest.raises(ValueError, match="needs dev batches"):
        loop.train(nn.Conv2d(3, 3, 1), [batch()], settings)


@pytest.mark.parametrize(("kind", "expected"), [("nominal", 0.4), ("effective", 0.05)])
def test_effective_decay_is_divided_by_the_passes(kind, expected):
    net = nn.Conv2d(3, 3, 1)
    settings = solver(weight_decay=0.4, decay=kind, batch=16, micro_batches=8, bias_decay=False)
    assert {decay for _, decay in options_of(net, settings).values()} == {expected, 0.0}


def test_no_updates_leave_the_net_and_its_statistics_as_they_were():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    net[0].running_mean += 1
    before = {key: value.clone() for key, value in net.state_dict().items()}
    curve = loop.train(net, [], solver(iterations=0))
    batch_norm.fix_batch_norm(net, [])
    assert curve.empty
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_watching_dev_leaves_the_running_statistics_alone():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).train()
    loss, accuracy = loop.evaluate_batches(net, [batch()])
    assert 0 <= accuracy <= 1 < loss + 1
    assert (net[0].running_mean == 0).all()
    assert (net[0].running_var == 1).all()
    assert net[0].num_batches_tracked == 0
    assert net[0].track_running_stats


def test_a_loss_that_is_not_finite_ends_the_training():
    images, labels = batch()
    images[0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        loop.train(nn.Conv2d(3, 3, 1), [(images, labels)], solver())


def test_a_small_net_learns_a_drawn_example():
    torch.manual_seed(0)
    image, label = torch.full((4, 3, 16, 16), 40.0), torch.zeros(4, 16, 16, dtype=torch.long)
    for i in range(4):
        image[i, :, 4 : 9 + i, 3 : 12 - i] = 200
        label[i, 4 : 9 + i, 3 : 12 - i] = 1
    label[:, 3] = VOID
    net = DeconvNet(classes=2, blocks=((8, 1), (8, 1)), fc=16, size=16, bn_eps=1e-5, std=58)
    curve = loop.train(net, [(image, label)] * 30, solver(optimizer="adamw", lr=0.01, momentum=0.9, iterations=30))
    assert len(curve) == 30
    assert curve["loss"].iloc[0] == pytest.approx(math.log(2), rel=0.05)  # nothing learned yet
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0] / 2


# Batch norm for inference


def test_fixed_statistics_are_the_plain_mean_over_batches():
    net = nn.Sequential(nn.Identity(), nn.BatchNorm2d(3))
    net[1].running_mean.fill_(99)
    batches = [batch(seed=seed) for seed in range(5)]
    batch_norm.fix_batch_norm(net, batches)
    means = torch.stack([images.mean(dim=(0, 2, 3)) for images, _ in batches]).mean(dim=0)
    variances = torch.stack([images.var(dim=(0, 2, 3)) for images, _ in batches]).mean(dim=0)
    torch.testing.assert_close(net[1].running_mean, means)
    torch.testing.assert_close(net[1].running_var, variances)
    assert not any(module.training for module in net.modules())


def test_fixed_statistics_make_inference_like_training():
    """The fault of others: statistics not fixed, and maps of zeros."""
    torch.manual_seed(0)
    net = DeconvNet(classes=2, blocks=((4, 1), (4, 1)), fc=8, size=16)
    images = 255 * torch.rand(16, 3, 16, 16)
    trained = net(images).detach()
    batch_norm.fix_batch_norm(net, [(images, None)])
    fixed = net(images).detach()
    assert fixed.std() > 0.5 * trained.std() > 0
    assert (fixed - trained).abs().mean() < 0.2 * trained.std()


# Compute


def test_flops_of_a_convolution_by_hand():
    net = nn.Conv2d(3, 5, 1)
    forward = 2 * (4 * 6 * 6) * 3 * 5  # a multiplication and an addition for each pixel and pair of channels
    weights = forward  # the gradient of the weights costs the same; nobody asks for that of the image
    labels = torch.zeros(4, 6, 6, dtype=torch.long)
    assert loop.flops_per_iteration(net, [(torch.rand(4, 3, 6, 6), labels)]) == forward + weights
    assert all(p.grad is None for p in net.parameters())


def test_flops_of_a_batch_in_parts_are_those_of_the_whole():
    seen, net = [], nn.Conv2d(3, 5, 1)
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    batch = (torch.rand(8, 3, 6, 6), torch.zeros(8, 6, 6, dtype=torch.long))
    assert loop.flops_per_iteration(net, [batch], micro_batches=4) == loop.flops_per_iteration(net, [batch])
    assert seen == [2, 8]  # a part is what fits the device


def test_flops_of_two_convolutions_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 7, 3, padding=1))
    pixels = 4 * 6 * 6
    first, second = 2 * pixels * 3 * 5, 2 * pixels * 5 * 7 * 9
    images, labels = torch.rand(4, 3, 6, 6), torch.zeros(4, 6, 6, dtype=torch.long)
    assert loop.flops_per_iteration(net, [(images, labels)]) == 2 * first + 3 * second
