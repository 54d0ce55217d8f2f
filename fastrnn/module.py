"""The one base of everything with parameters: named arrays, their gradients, and modules within modules."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastrnn import _check

__all__ = ["Module", "Parameter"]


Self = TypeVar("Self", bound="Module")


class Parameter(NamedTuple):
    """A parameter as an optimiser sees it: both arrays stay the same objects for the life of their module."""

    name: str
    value: np.ndarray
    grad: np.ndarray


class Module:
    """
    Base class of layers and models.

    A parameter is a plain writable array, reached as an attribute (``layer.weight_ih_l0``) and assigned in place
    (``layer.weight_ih_l0 = values`` copies into it). Modules set as attributes are part of their owner, and their
    parameters are named with their attribute's name and a dot in front.

    Subclasses offer ``forward(...) -> (..., cache)`` and ``backward(cache, d...)``, which adds into `grads`.

    Attributes
    ----------
    params, grads : dict of str to array
        This module's own parameters, without those of the modules in it, and the gradients that backward adds up.
    """

    uses_lengths = False  # whether forward takes ``lengths=``, the numbers of valid steps
    params: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]

    def __new__(cls: type[Self], *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments, for whatever the class: `arguments` tells them."""
        module = super().__new__(cls)
        kwargs.pop("rng", None)  # chance is no part of what a module is
        # Lists are the caller's, who may change them.
        args = tuple(tuple(value) if isinstance(value, list) else value for value in args)
        kwargs = {name: tuple(value) if isinstance(value, list) else value for name, value in kwargs.items()}
        module.__dict__["_arguments"] = (args, kwargs)
        return module

    def __init__(self) -> None:
        self.__dict__["params"] = {}
        self.__dict__["grads"] = {}

    def add_parameter(self, name: str, value: np.ndarray) -> None:
        """Take `value` in as the parameter `name`, with a gradient of zeros."""
        self.params[name] = value
        self.grads[name] = np.zeros(value.shape, value.dtype)  # of which zeros_like would touch every page

    @property
    def arguments(self) -> dict[str, Any]:
        """
        The constructor's arguments by name, as they were given, without `rng`: what `fastrnn.save` writes down.

        With the parameters they make the module anew. Lists, and those of ``*modules``, are tuples.
        """
        args, kwargs = self._arguments
        signature = inspect.signature(self.__init__)
        found = signature.bind(*args, **kwargs).arguments
        for parameter in signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found |= found.pop(parameter.name, {})
        return found

    def __getattr__(self, name: str) -> Any:
        params = self.__dict__.get("params", {})
        if name in params:
            return params[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        params = self.__dict__.get("params", {})
        if name in params:
            params[name][...] = _parameter_value(name, value, params[name])
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        args, kwargs = self._arguments
        parts = [_shown(value) for value in args] + [f"{name}={_shown(value)}" for name, value in kwargs.items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.params]

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter with its full name and gradient, this module's own first."""
        for name, value in self.params.items():
            yield Parameter(name, value, self.grads[name])
        for child, module in vars(self).items():
            if isinstance(module, Module):
                for name, value, grad in module.parameters():
                    yield Parameter(f"{child}.{name}", value, grad)

    def zero_grad(self) -> None:
        """Set every gradient to zeros."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    def state_dict(self) -> dict[str, np.ndarray]:
        """
        Copies of all parameters by name.

        Returns
        -------
        dict of str to array
            PyTorch's names and shapes, so that ``torch.nn`` modules and these exchange theirs.
        """
        return {p.name: p.value.copy() for p in self.parameters()}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """
        Set all parameters.

        Parameters
        ----------
        mapping : mapping of str to array
            A value for each parameter and nothing else; floats of another width are converted. Anything NumPy can
            read as an array will do, a PyTorch state_dict among them.

        Raises
        ------
        ValueError, TypeError
            For a missing or unknown name, or a value of another shape or kind; then nothing has been changed.
        """
        parameters = {p.name: p.value for p in self.parameters()}
        missing = [name for name in parameters if name not in mapping]
        unknown = [name for name in mapping if name not in parameters]
        if missing or unknown:
            raise ValueError(f"mapping: missing {missing or 'none'}, unknown {unknown or 'none'}")
        values = {name: _parameter_value(name, mapping[name], old) for name, old in parameters.items()}
        for name, value in values.items():
            parameters[name][...] = value


def _shown(value: Any) -> str:
    """A constructor's argument: a dtype or a function by its name."""
    return getattr(value, "__name__", None) or repr(value)


def _parameter_value(name: str, value: Any, old: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: dtype {array.dtype}, expected {old.dtype}")
    if array.shape != old.shape:
        raise ValueError(f"{name}: shape {array.shape}, expected {old.shape}")
    return array


def checked_module(name: str, value: Any) -> Module:
    """`value`, which must be a module; its parameters are what PyTorch's users hand over."""
    if not isinstance(value, Module):
        raise TypeError(f"{name}: {type(value).__name__}, expected a fastrnn.Module, not its parameters")
    return value


def float_dtype(dtype: Any) -> np.dtype:
    """`dtype` as one of the two float types."""
    result = np.dtype(dtype)
    if result not in _check.FLOATS:
        raise TypeError(f"dtype: {result}, expected float32 or float64")
    return result
