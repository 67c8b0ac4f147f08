"""Training by hand: void in the loss, learning rates, parameter groups, micro-batches, batch-norm statistics, FLOPs."""

import math

import numpy as np
import pytest
import torch
from torch import nn

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
    plain = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "weight_decay_scaling": "paper"}
    plain |= {"bias_lr_factor": 1.0, "encoder_lr_factor": 1.0, "schedule": "step", "step_size": 1000, "warmup": 0}
    plain |= {"iterations": 1, "micro_batches": 1}
    settings = params.validate(params.compose("icons"), "icons").stage1
    return settings.model_copy(update=plain | departures)


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


def test_the_loss_of_channels_last_maps_copies_none():
    scores = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 3, (2, 4, 5))
    with torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        mean_cross_entropy(scores, labels).backward()
    copied = [e for e in profile.events() if e.name == "aten::copy_" and math.prod(e.input_shapes[0]) >= scores.numel()]
    assert not copied
    assert scores.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_of_void_has_loss_zero():
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = mean_cross_entropy(scores, torch.full((2, 4, 4), VOID))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


# Learning rate


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"schedule": "step", "step_size": 9000}, {0: 1, 8999: 1, 9000: 0.1, 17999: 0.1, 18000: 0.01}),
        ({"schedule": "step", "step_size": 10, "warmup": 3}, {0: 0.25, 2: 0.75, 3: 1, 10: 0.1}),
        (
            {"schedule": "cosine", "warmup": 4, "iterations": 12},
            {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 6: (1 + 0.5**0.5) / 2, 8: 0.5, 12: 0},
        ),
    ],
)
def test_learning_rate_schedules_by_hand(settings, factors):
    assert {step: lr_factor(step, solver(**settings)) for step in factors} == pytest.approx(factors)


# Optimizer


def options_of(net, settings):
    """Name of each parameter → (learning rate, weight decay)."""
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
    options = options_of(net, solver(lr=0.01, weight_decay=5e-4, bias_lr_factor=1.0, bias_decay=True))
    assert set(options.values()) == {(0.01, 5e-4)}
    options = options_of(net, solver(lr=0.01, bias_lr_factor=2.0, encoder_lr_factor=0.5, blocks_lr_factor=0.1))
    assert options["encoder.blocks.0.conv1_1.conv.weight"][0] == pytest.approx(0.0005)
    assert options["encoder.blocks.0.conv1_1.conv.bias"][0] == pytest.approx(0.001)
    assert [options[f"{name}.conv.weight"][0] for name in ("encoder.fc6", "fc6_deconv")] == [0.005, 0.01]


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


def test_five_iterations_of_two_layers_by_caffes_update_rule():
    """v ← μv + η·lr_mult·(g + λ·decay_mult·w), w ← w − v: biases have twice the learning rate and no decay; g is
    the mean of 8 micro-batches.

    All arithmetic is written out here in float64, with the gradients of the two layers. Micro-batches have unequal
    numbers of void pixels, so the mean of their losses is not the mean over all pixels.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1))
    w = {name: p.detach().double().numpy().reshape(len(p), -1).squeeze() for name, p in net.named_parameters()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    steps = [batch(images=16, seed=seed) for seed in range(5)]
    for _, labels in steps:
        labels[::3, 1] = VOID
    settings = solver(
        lr=0.05, momentum=0.9, weight_decay=0.02, bias_lr_factor=2.0, bias_decay=False, iterations=5, micro_batches=8
    )
    curve = loop.train(net, steps, settings, num_rows=2)

    losses = []
    for images, labels in steps:
        gradient = {name: np.zeros_like(value) for name, value in w.items()}
        losses.append(0)
        for part in range(8):
            two = slice(2 * part, 2 * part + 2)
            x = images[two].double().permute(0, 2, 3, 1).reshape(-1, 3).numpy()
            target = labels[two].reshape(-1).numpy()
            x, target = x[target != VOID], target[target != VOID]
            hidden = x @ w["0.weight"].T + w["0.bias"]
            scores = np.exp(hidden @ w["1.weight"].T + w["1.bias"])
            scores /= scores.sum(axis=1, keepdims=True)
            losses[-1] -= np.log(scores[range(len(target)), target]).mean() / 8
            error = (scores - np.eye(3)[target]) / len(target)
            gradient["1.weight"] += error.T @ hidden / 8
            gradient["1.bias"] += error.sum(axis=0) / 8
            gradient["0.weight"] += (error @ w["1.weight"]).T @ x / 8
            gradient["0.bias"] += (error @ w["1.weight"]).sum(axis=0) / 8
        for name in w:
            lr, decay = (0.1, 0.0) if name.endswith("bias") else (0.05, 0.02)
            v[name] = 0.9 * v[name] + lr * (gradient[name] + decay * w[name])
            w[name] = w[name] - v[name]

    expected = [np.mean(losses[:2]), np.mean(losses[2:4]), losses[4]]  # since the row before
    assert curve["loss"].tolist() == pytest.approx(expected, rel=1e-5)
    for name, value in net.named_parameters():
        np.testing.assert_allclose(value.detach().numpy().reshape(w[name].shape), w[name], atol=1e-6, rtol=0)


def train_together(monkeypatch, at_once):
    """Three iterations of four micro-batches with unequal void, `at_once` going through the network together: the
    curve, the final state, and the sizes of the network's inputs.
    """
    monkeypatch.setenv("DECONVNET_MICRO_BATCHES", str(at_once))
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)]
    net, sizes = nn.Sequential(*layers), []
    net[0].register_forward_hook(lambda _, __, out: sizes.append(len(out)))
    steps = [batch(images=8, seed=seed) for seed in range(3)]
    for images, labels in steps:
        images *= torch.linspace(1, 4, 8).view(-1, 1, 1, 1)  # each micro-batch has other statistics
        labels[:3, :3] = VOID
    curve = loop.train(net, steps, solver(iterations=3, micro_batches=4))
    assert "forward" not in vars(net[1])  # batch norm is the class's own again
    return curve, net.state_dict(), sizes


@pytest.mark.parametrize(("at_once", "expected"), [(2, [4] * 6), (3, [6, 2] * 3), (4, [8] * 3), (99, [8] * 3)])
def test_micro_batches_together_train_like_one_by_one(monkeypatch, at_once, expected):
    curve, state, sizes = train_together(monkeypatch, 1)
    assert sizes == [2] * 12
    other_curve, other_state, other_sizes = train_together(monkeypatch, at_once)
    assert other_sizes == expected
    torch.testing.assert_close(other_state, state, rtol=1e-4, atol=1e-6)  # running statistics too
    assert list(other_curve["loss"]) == pytest.approx(list(curve["loss"]), rel=1e-5)


def test_ghost_batch_norm_by_hand():
    norm, x = nn.BatchNorm2d(1), torch.tensor([0.0, 2, 10, 14]).view(4, 1, 1, 1)
    with batch_norm.ghost_batch_norm(norm, 2):
        assert norm(x).flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-4)
    spread = x.var(correction=0).sqrt()
    torch.testing.assert_close(norm(x), (x - 6.5) / spread, atol=1e-4, rtol=0)


def test_how_many_micro_batches_go_together(monkeypatch):
    monkeypatch.delenv("DECONVNET_MICRO_BATCHES", raising=False)
    assert machine.micro_batches_at_once(8) == 1
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    found = {}
    for precision in machine.PRECISIONS:
        monkeypatch.setenv("DECONVNET_PRECISION", precision)
        found[precision] = machine.micro_batches_at_once(8)
    assert found == {"32-true": 1, "tf32": 8, "bf16-mixed": 8}
    monkeypatch.setenv("DECONVNET_MICRO_BATCHES", "3")
    assert (machine.micro_batches_at_once(8), machine.micro_batches_at_once(2)) == (3, 2)


@pytest.mark.parametrize(("workers", "on_gpu"), [("0", True), ("3", True), ("4", False)])
def test_a_gpu_makes_its_crops_where_worker_processes_are_few(monkeypatch, workers, on_gpu):
    class OnGpu:
        images, make_on_device = property(lambda self: self), "a function"
        fits, on_device, __len__ = lambda *_: True, lambda *_: "on the GPU", lambda _: 5

    monkeypatch.setattr(data_loading, "DataLoader", lambda *_, **__: "by workers")
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setenv("DECONVNET_WORKERS", workers)
    assert data_loading.loader(OnGpu()) == ("on the GPU" if on_gpu else "by workers")


def test_the_curve_has_the_loss_on_dev_and_is_logged_row_by_row():
    net, rows = nn.Conv2d(3, 3, 1), []
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    steps, settings = [batch(seed=seed) for seed in range(6)], solver(lr=1e-12, iterations=6)
    curve = loop.train(net, steps, settings, validation=[batch(seed=9)], log=rows.append, num_rows=2)
    assert curve["step"].tolist() == [3, 6]
    assert curve["dev_loss"].iloc[-1] == pytest.approx(math.log(3), rel=1e-5)
    assert rows == [{k: v for k, v in row.items() if v == v} for row in curve.to_dict("records")]


def test_the_learning_rate_drops_when_dev_stops_improving(monkeypatch):
    """Dev is evaluated every 2 iterations; accuracies .5 .6 .6 .7 .65: drops after the third and the fifth."""
    accuracies, plateaus = iter([0.5, 0.6, 0.6, 0.7, 0.65]), []
    monkeypatch.setattr(loop, "evaluate_batches", lambda model, validation: (1.0, next(accuracies, 0.9)))
    monkeypatch.setattr(loop, "lr_factor", lambda step, settings, n: plateaus.append(n) or lr_factor(step, settings, n))
    settings, net = solver(schedule="plateau", eval_every=2, iterations=12), nn.Conv2d(3, 3, 1, bias=False)
    curve = loop.train(net, [batch()] * 12, settings, validation=[batch()], num_rows=4)
    assert plateaus == [0] * 6 + [1] * 4 + [2] * 3  # for each iteration, and for the one that would follow
    assert curve["lr"].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.001])  # of iterations 3, 6, 9, 12
    with pytest.raises(ValueError, match="needs validation batches"):
        loop.train(nn.Conv2d(3, 3, 1), [batch()], settings)


@pytest.mark.parametrize(("scaling", "expected"), [("paper", 0.4), ("caffe", 0.05)])
def test_caffes_weight_decay_is_divided_by_the_micro_batches(scaling, expected):
    settings = solver(weight_decay=0.4, weight_decay_scaling=scaling, micro_batches=8, bias_decay=False)
    assert {decay for _, decay in options_of(nn.Conv2d(3, 3, 1), settings).values()} == {expected, 0.0}


def test_no_iterations_leave_the_network_and_its_statistics_unchanged():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    net[0].running_mean += 1
    before = {key: value.clone() for key, value in net.state_dict().items()}
    curve = loop.train(net, [], solver(iterations=0))
    batch_norm.fix_batch_norm(net, [])
    assert curve.empty
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_loss_and_accuracy_on_validation_batches_by_hand():
    """With statistics of each batch; a batch of void has no accuracy; the running statistics stay as they are."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).train()
    batches = [batch(seed=1), batch(seed=2), (batch()[0], torch.full((4, 4, 4), VOID))]
    batches[0][1][:2] = VOID
    losses, accuracies = [0.0], []  # the batch of void has loss 0
    for images, labels in batches[:2]:
        mean, variance = images.mean(dim=(0, 2, 3), keepdim=True), images.var(dim=(0, 2, 3), keepdim=True, correction=0)
        scores = net[1]((images - mean) / (variance + 1e-5).sqrt()).movedim(1, -1)[labels != VOID]
        labels = labels[labels != VOID]
        losses.append(-scores.log_softmax(1)[range(len(labels)), labels].mean().item())
        accuracies.append((scores.argmax(1) == labels).float().mean().item())
    found = loop.evaluate_batches(net, batches)
    assert found == pytest.approx((np.mean(losses), np.mean(accuracies)), rel=1e-5)
    assert (net[0].running_mean == 0).all()
    assert (net[0].running_var == 1).all()
    assert net[0].num_batches_tracked == 0
    assert net[0].track_running_stats


def test_a_loss_that_is_not_finite_ends_the_training():
    images, labels = batch()
    images[0, 0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        loop.train(nn.Conv2d(3, 3, 1), [(images, labels)], solver())


def test_a_small_network_learns_an_example():
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


# Compute


def test_flops_of_two_convolutions_by_hand():
    """A multiplication and an addition for each pixel and weight: forward, for the weights' gradient, and for the
    input's gradient, which the first layer does not need.
    """
    net, pixels = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 7, 3, padding=1)), 4 * 6 * 6
    first, second = 2 * pixels * 3 * 5, 2 * pixels * 5 * 7 * 9
    images, labels = torch.rand(4, 3, 6, 6), torch.zeros(4, 6, 6, dtype=torch.long)
    assert loop.flops_per_iteration(net, [(images, labels)]) == 2 * first + 3 * second
    assert all(p.grad is None for p in net.parameters())


def test_flops_are_counted_on_one_micro_batch():
    sizes, net = [], nn.Conv2d(3, 5, 1)
    net.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    batch = (torch.rand(8, 3, 6, 6), torch.zeros(8, 6, 6, dtype=torch.long))
    assert loop.flops_per_iteration(net, [batch], micro_batches=4) == loop.flops_per_iteration(net, [batch])
    assert sizes == [2, 8]


def test_flops_of_batches_of_several_sizes_are_averaged():
    """Each size is run once; an operation for each pixel, so sizes of 4, 4 and 8 rows have 16/3 of one row's."""
    rows, net = [], nn.Conv2d(3, 5, 1)
    net.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[2]))
    batches = [(torch.rand(2, 3, n, 6), torch.zeros(2, n, 6, dtype=torch.long)) for n in (4, 4, 8)]
    one, mean = loop.flops_per_iteration(net, batches[:1]), loop.flops_per_iteration(net, batches)
    assert mean == one * 16 // 12
    assert rows == [4, 4, 8]
