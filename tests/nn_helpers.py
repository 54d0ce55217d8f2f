"""What the tests of `fastrnn.nn` share: gradients of any module by finite differences."""

import numpy as np


def numeric_gradient(loss, value, eps=1e-6):
    """By central differences; `value` is changed in place and put back."""
    grad = np.zeros_like(value)
    for at in np.ndindex(*value.shape):
        keep = value[at]
        value[at] = keep + eps
        up = loss()
        value[at] = keep - eps
        grad[at] = (up - loss()) / (2 * eps)
        value[at] = keep
    return grad


def check_gradients(module, *inputs, tolerance=1e-7, **options):
    """
    All gradients of a float64 module, with respect to inputs and parameters, and that those of parameters add up.

    Inputs may be integers, which have no gradient. Returns y and the gradients of the inputs.
    """
    rng = np.random.default_rng(99)
    module.zero_grad()
    y, cache = module.forward(*inputs, **options)
    np.testing.assert_array_equal(module(*inputs, **options), y)
    dy = rng.standard_normal(y.shape)

    def loss():
        return float(np.sum(module(*inputs, **options) * dy))

    gradients = module.backward(cache, dy)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for value, gradient in zip(inputs, gradients, strict=False):
        if value.dtype.kind == "f":
            assert gradient.shape == value.shape
            np.testing.assert_allclose(gradient, numeric_gradient(loss, value), atol=tolerance)
    module.backward(module.forward(*inputs, **options)[1], dy)
    for name, value, gradient in module.parameters():
        expected = 2 * numeric_gradient(loss, value)
        np.testing.assert_allclose(gradient, expected, atol=2 * tolerance, err_msg=name)
    return y, gradients


def gradients_of(module):
    """Copies of the gradients of all parameters by name."""
    return {name: gradient.copy() for name, _, gradient in module.parameters()}


def randomised(module, rng):
    """The module with parameters that are no zeros or ones."""
    for _, value, _ in module.parameters():
        value[...] = 0.5 * rng.standard_normal(value.shape)
    return module


def check_padding(module, x, lengths, rng):
    """
    That what stands past the ends has no effect: not on y up to there, not on any gradient, be it NaN.

    `y` is (N, T, ...), zeros past the ends, or (N, ...).
    """
    runs = []
    for filling in (0.0, 1e3, np.nan):
        filled = x.copy()
        for n, length in enumerate(lengths):
            filled[n, length:] = filling
        module.zero_grad()
        y, cache = module.forward(filled, lengths=lengths)
        dy = np.random.default_rng(5).standard_normal(y.shape)
        for n, length in enumerate(lengths if y.ndim == 3 else ()):
            dy[n, length:] = filling
        dx = module.backward(cache, dy)
        dx = dx[0] if isinstance(dx, tuple) else dx
        np.testing.assert_array_equal(module(filled, lengths=lengths), y)
        runs.append({"y": y, "dx": dx} | gradients_of(module))
    for other in runs[1:]:
        for name, value in runs[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)
    y, dx = runs[0]["y"], runs[0]["dx"]
    for n, length in enumerate(lengths):
        assert not dx[n, length:].any()
        if y.ndim == 3:
            assert not y[n, length:].any()
        # a sequence alone, without anything behind its end, has the same result
        alone = module(x[n : n + 1, :length])
        np.testing.assert_allclose(y[n, :length] if y.ndim == 3 else y[n], alone[0], atol=1e-13)
