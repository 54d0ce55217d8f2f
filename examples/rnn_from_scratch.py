"""A plain RNN written out in NumPy, and the same with fastrnn: outputs and gradients agree to 12 digits."""

import numpy as np
from _shared import OUT, digits_in_common, run, save

import fastrnn
from fastrnn import nn, viz

WANTED = 12  # decimal digits in common; more do not count


class SimpleRNN:
    """``h = tanh(Wxh x + Whh h + bh)``, ``y = Why h + by``, on lists of column vectors."""

    def __init__(self, input_size, hidden_size, output_size, rng):
        self.Wxh = 0.3 * rng.standard_normal((hidden_size, input_size))
        self.Whh = 0.3 * rng.standard_normal((hidden_size, hidden_size))
        self.Why = 0.3 * rng.standard_normal((output_size, hidden_size))
        self.bh, self.by = np.zeros((hidden_size, 1)), np.zeros((output_size, 1))

    def forward(self, inputs):
        """The outputs of all steps, and the last hidden state."""
        self.inputs, self.states, outputs = inputs, [np.zeros_like(self.bh)], []
        for x in inputs:
            h = np.tanh(self.Wxh @ x + self.Whh @ self.states[-1] + self.bh)
            self.states.append(h)
            outputs.append(self.Why @ h + self.by)
        return outputs, self.states[-1]

    def backward(self, doutputs):
        """Gradients of the parameters by name, through all steps from the last to the first."""
        d = {name: np.zeros_like(getattr(self, name)) for name in ("Wxh", "Whh", "Why", "bh", "by")}
        dh = np.zeros_like(self.bh)
        for t in reversed(range(len(doutputs))):
            h, before = self.states[t + 1], self.states[t]
            d["Why"] += doutputs[t] @ h.T
            d["by"] += doutputs[t]
            da = (dh + self.Why.T @ doutputs[t]) * (1 - h * h)
            d["Wxh"] += da @ self.inputs[t].T
            d["Whh"] += da @ before.T
            d["bh"] += da
            dh = self.Whh.T @ da
        return d


def main(quick=False, out=OUT, seed=0):
    """Train to foretell the next value of a sum of two sine waves; in each step both compute the gradient."""
    steps, t = 50 if quick else 400, np.arange(61)
    series = 0.6 * np.sin(0.3 * t) + 0.3 * np.sin(0.8 * t + 1)
    x, target = series[:-1], series[1:]
    ours = SimpleRNN(1, 16, 1, np.random.default_rng(seed))
    layer, head, loss = fastrnn.RNN(1, 16, dtype=np.float64), nn.Linear(16, 1, dtype=np.float64), nn.MSELoss()
    layer.bias_hh_l0 = np.zeros(16)  # ours has one bias, fastrnn's, as PyTorch's, two
    digits = 16.0
    for _ in range(steps):
        layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0 = ours.Wxh, ours.Whh, ours.bh[:, 0]
        head.weight, head.bias = ours.Why, ours.by[:, 0]
        outputs, h = ours.forward([np.array([[value]]) for value in x])
        gradients = ours.backward([2 * (y - value) / len(x) for y, value in zip(outputs, target, strict=True)])

        for module in (layer, head):
            module.zero_grad()
        states, last, cache = layer.forward(x.reshape(-1, 1, 1))  # (T, B, I)
        y, head_cache = head.forward(states)
        value, loss_cache = loss.forward(y, target.reshape(y.shape))
        layer.backward(cache, head.backward(head_cache, loss.backward(loss_cache)))
        theirs = {"Wxh": layer.grads["weight_ih_l0"], "Whh": layer.grads["weight_hh_l0"], "Why": head.grads["weight"]}
        theirs |= {"bh": layer.grads["bias_ih_l0"][:, None], "by": head.grads["bias"][:, None]}
        pairs = [(theirs[name], gradients[name]) for name in gradients]
        digits = min(digits, digits_in_common((y[:, 0], np.hstack(outputs).T), (last[0].T, h), *pairs))
        for name, gradient in gradients.items():
            setattr(ours, name, getattr(ours, name) - 0.1 * gradient)
    print(f"{steps} steps of gradient descent: mean squared error {value:.2g}, {digits:.1f} digits in common")
    ax = viz.forecast(series, y.ravel(), start=1)
    return {"score": min(digits, WANTED), "picture": save(ax, out, "rnn_from_scratch")}


if __name__ == "__main__":
    run(main)
