"""Fully connected critics for the tests of mlp_critic_loss, whose losses and derivatives are known in float64."""

from __future__ import annotations

import itertools

import numpy as np
from core_arrays import TOLERANCES, Output, assert_same_bits, place

DTYPES = ("float64", "float32")
# target, one_sided, reduction, weight
SETTINGS = [(1.0, False, "mean", 10.0), (1.0, True, "sum", 0.3), (0.0, False, "sum", 2.0), (0.0, True, "mean", 5.0)]
SLOPES = (0.0, 0.2, 1.0, -0.5)
# Samples, and features of both sides of a layer, that are more than the terms of a block of products.
LONG = [(700, (6, 4, 1)), (3, (530, 9, 1)), (70, (3, 520, 514, 1))]


class Critic:
    """A draw in storage of dtype, none of whose activations is so close to its kink that rounding could cross it:
    mixed samples, and real and fake ones where they are `judged`."""

    def __init__(self, B, sizes, dtype, slopes, biased=True, shift=0, judged=True):
        for seed in itertools.count():
            rng = np.random.default_rng(seed)
            kinds = 3 if judged else 1
            self.samples = [place(rng.normal(size=(B, sizes[0])), dtype, shift) for _ in range(kinds)]
            pairs = list(itertools.pairwise(sizes))
            self.weights = [place(rng.normal(size=(out, n)) * np.sqrt(2 / max(n, 1)), dtype, shift) for n, out in pairs]
            self.biases = [place(rng.normal(size=out), dtype, shift) if biased else None for _, out in pairs]
            self.slopes, self.dtype = slopes, dtype
            self.bends, distances = zip(*map(self.forward, self.samples))
            if min(distances) > 200 * TOLERANCES[dtype][0]:
                break

    def forward(self, x):
        """The derivatives of the activations, and the least distance from a kink."""
        h, bends, distance = x.astype(np.float64), [], np.inf
        for W, b, slope in zip(self.weights, self.biases, self.slopes, strict=True):
            z = h @ W.T.astype(np.float64) + (0 if b is None else b)
            bends.append(np.where(z > 0, 1.0, slope))
            distance = min(distance, np.abs(z).min(initial=np.inf)) if slope != 1 else distance
            h = z * bends[-1]
        return bends, distance

    def adjoint(self, bends, delta):
        """The derivatives by each z, and by the samples, from that by the scores."""
        deltas = []
        for W, bend in zip(reversed(self.weights), reversed(bends)):
            deltas.insert(0, delta * bend.astype(delta.dtype))
            delta = deltas[0] @ W.astype(delta.dtype)
        return deltas, delta

    def results(self, setting, dtype):
        """Penalty, wasserstein, norms and gradients of weights and biases, computed in dtype but for the norms; and the
        magnitude that each one's terms have."""
        target, one_sided, reduction, weight = setting
        weights = [W.astype(dtype) for W in self.weights]
        bends = [bend.astype(dtype) for bend in self.bends[0]]
        deltas, grad = self.adjoint(bends, np.ones_like(bends[-1]))
        norms = np.sqrt((grad.astype(np.float64) ** 2).sum(1))
        excess = np.maximum(norms - target, 0) if one_sided else norms - target
        factor = weight / len(norms) if reduction == "mean" else weight
        scale = np.full_like(norms, 2.0) if target == 0 else 2 * excess / np.where(norms == 0, np.inf, norms)
        t, grads, sizes = ((factor * scale)[:, None] * grad).astype(dtype), [], []
        for W, bend, delta in zip(weights, bends, deltas, strict=True):
            grads.append(delta.T @ t)
            sizes.append((np.abs(delta).T @ np.abs(t)).max())
            t = (t @ W.T) * bend
        penalty, penalty_size = np.array([factor * (excess**2).sum()]), factor * ((norms + target) ** 2).sum()
        wasserstein, largest_score, grad_biases, bias_sizes = np.zeros(1), 0.0, [], []
        if len(self.samples) > 1:
            wasserstein, largest_score, grad_biases, bias_sizes = self.add_judged(dtype, grads, sizes)
        values = [penalty, wasserstein, norms, *grads, *grad_biases]
        return values, [penalty_size, largest_score, norms.max(), *sizes, *bias_sizes]

    def add_judged(self, dtype, grads, sizes):
        """Adds the derivatives of -wasserstein to those of the penalty."""
        wasserstein, largest_score, grad_biases, bias_sizes = np.zeros(1), 0.0, [], []
        for sign, x, bends in zip((1, -1), self.samples[1:], self.bends[1:]):
            inputs = [x.astype(dtype)]
            for W, b, bend in zip(self.weights, self.biases, bends, strict=True):
                z = inputs[-1] @ W.astype(dtype).T + (0 if b is None else b.astype(dtype))
                inputs.append(z * bend.astype(dtype))
            scores = inputs.pop()
            wasserstein = wasserstein + sign * scores.astype(np.float64).mean()
            largest_score = max(largest_score, np.abs(scores).max())
            deltas, _ = self.adjoint(bends, np.full_like(scores, -sign / scores.size))
            for index, (delta, h) in enumerate(zip(deltas, inputs, strict=True)):
                grads[index] = grads[index] + delta.T @ h
                sizes[index] += (np.abs(delta).T @ np.abs(h)).max()
            wanted = [delta for delta, b in zip(deltas, self.biases) if b is not None]
            both = [(delta.sum(0), np.abs(delta).sum(0).max()) for delta in wanted]
            grad_biases = [sum_ + more for sum_, (more, _) in zip(grad_biases or [0] * len(both), both)]
            bias_sizes = [size + more for size, (_, more) in zip(bias_sizes or [0] * len(both), both)]
        return wasserstein, largest_score, grad_biases, bias_sizes

    def run(self, core, run, setting, needs_grads=True, shift=0):
        dtype = self.samples[0].dtype
        outputs = [Output(1, dtype, shift), Output(1, dtype, shift), Output(len(self.samples[0]), np.float64)]
        grads = [Output(W.shape, dtype, shift) for W in self.weights] if needs_grads else []
        judged = len(self.samples) > 1
        biases = [None if b is None else Output(b.shape, dtype, shift) for b in self.biases if needs_grads and judged]
        mixed, real, fake = (*self.samples, None, None)[:3]
        core.mlp_critic_loss(
            *(run, self.dtype, core.NormPenalty(*setting), mixed, real, fake),
            *(self.weights, self.biases, self.slopes, *[each.array for each in outputs]),
            *([each.array for each in grads], [None if each is None else each.array for each in biases]),
        )
        return tuple(each.written() for each in (*outputs, *grads, *biases) if each is not None)


def assert_right(critic, results, setting, message):
    """At most twice as far from the exact results as numpy is in the same dtype, and a few roundings for each layer."""
    exact, sizes = critic.results(setting, np.float64)
    plain, _ = critic.results(setting, critic.dtype)
    floor = 3 * len(critic.weights) * TOLERANCES[critic.dtype][0]
    for index, (ours, theirs, best, size) in enumerate(zip(results, plain, exact, sizes, strict=True)):
        error, allowed = np.abs(ours - best).max(), 2 * np.abs(theirs - best).max() + floor * size
        assert error <= allowed, f"{message}: result {index} off by {error:.3g}, allowed {allowed:.3g}"


def cases(dtype, batches, layer_sizes):
    """Batches with sizes, slopes, settings and alignments in turn."""
    slopes, settings, shifts = itertools.cycle(SLOPES), itertools.cycle(SETTINGS), itertools.cycle((0, 1, 3))
    sizes = itertools.cycle(layer_sizes)
    for B in batches:
        for judged, layers in zip((True, False, True, True), sizes):
            each = [next(slopes) for _ in layers[1:]]
            setting, shift = next(settings), next(shifts)
            biased = (B + len(layers)) % 3 != 0
            critic = Critic(B, layers, dtype, each, biased, shift, judged)
            message = f"B {B}, {layers}, {each}, {setting}, biased {biased}, shift {shift}, judged {judged}"
            yield critic, setting, shift, message


def check_samples_alone(core, run, dtype, B=40):
    critic = Critic(B, (5, 19, 9, 1), dtype, [0.0, 0.2, 1.0])
    samples = critic.samples
    _, wasserstein, norms = critic.run(core, run, SETTINGS[0], needs_grads=False)
    differences = []
    for b in range(B):
        critic.samples = [x[b : b + 1].copy() for x in samples]
        _, difference, norm = critic.run(core, run, SETTINGS[0], needs_grads=False)
        assert_same_bits(norm, norms[b : b + 1])
        differences.append(difference)
    np.testing.assert_allclose(np.mean(differences), wasserstein, atol=4 * TOLERANCES[dtype][0])


def check_zero_gradients(core, run, dtype, setting):
    """Samples whose units are all switched off add target^2 to the penalty and nothing to its derivatives."""
    target, one_sided, _, weight = setting
    setting = (target, one_sided, "sum", weight)
    critic = Critic(20, (4, 9, 1), dtype, [0.0, 1.0], judged=False)
    critic.samples[0][::2] = 0
    critic.biases[0][:] = -0.1
    value, _, norms, *grads = critic.run(core, run, setting)
    critic.samples = [critic.samples[0][1::2].copy()]
    others, _, norms_of_others, *grads_of_others = critic.run(core, run, setting)
    assert (norms[::2] == 0).all() and (norms_of_others > 0).any()
    assert_same_bits(norms[1::2], norms_of_others)
    np.testing.assert_allclose(value, others + (0 if one_sided else 10 * weight * target**2), rtol=1e-6)
    for actual, expected in zip(grads, grads_of_others, strict=True):
        assert_same_bits(actual + 0, expected + 0)  # adding up zeros, of either sign, changes nothing


def check_nothing(core, run):
    """No samples, no features, no units, no scores."""
    for B, sizes in ((0, (3, 4, 1)), (2, (0, 4, 1)), (2, (3, 0, 1)), (2, (3, 4, 0))):
        critic = Critic(B, sizes, "float64", [0.0, 1.0])
        value, wasserstein, norms, *grads = critic.run(core, run, SETTINGS[0])
        assert np.isnan(value) if B == 0 else value == 10.0
        assert np.isnan(wasserstein) if B == 0 or sizes[-1] == 0 else abs(wasserstein) < 1e-15
        assert (norms == 0).all()
        # Samples that are all alike push the biases from both sides.
        assert all((np.abs(grad) < 1e-15).all() for grad in grads)
