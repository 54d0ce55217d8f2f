"""Modules as descriptions, plain JSON, and modules made of a description and their parameters."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from fastrnn.module import Module

PLAIN = bool | int | float | str  # what is in a description as it is

# --- a description of a module ---------------------------------------------------------------------------------------


@cache
def registry() -> dict[str, type[Module]]:
    """The modules that may be in a file, by name: the public ones of this package and no others."""
    import fastrnn
    from fastrnn import models, nn

    public = (getattr(space, name) for space in (fastrnn.layers, nn, models) for name in space.__all__)
    return {found.__name__: found for found in public if isinstance(found, type) and issubclass(found, Module)}


def describe(module: Module) -> dict[str, Any]:
    """
    What `build` makes the module of, beside its parameters.

    Raises
    ------
    TypeError
        For a module that is not of this package, or built with something that is no number, text or module.
    ValueError
        For a number that is not finite, which JSON has not.
    """
    name = type(module).__name__
    if registry().get(name) is not type(module):
        raise TypeError(f"module: {name}, expected one of this package; its state_dict() can be saved with save_arrays")
    found = {argument: _described(f"{name}.{argument}", value) for argument, value in module.arguments.items()}
    return {"class": name, "arguments": found}


def _described(where: str, value: Any) -> Any:
    from fastrnn.data import CharVocabulary

    if isinstance(value, Module):
        return describe(value)
    if isinstance(value, CharVocabulary):
        return {"class": "CharVocabulary", "code_points": value.code_points.tolist()}
    if isinstance(value, list | tuple):
        return [_described(where, part) for part in value]
    if isinstance(value, np.dtype | type):
        return np.dtype(value).name
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value}, expected a finite number")
    if value is None or isinstance(value, PLAIN):
        return value
    raise TypeError(f"{where}: {type(value).__name__}, expected a number, a text, a module, or a list of such")


# --- the way back ----------------------------------------------------------------------------------------------------


class _Unset(np.ndarray):
    """Numbers that nobody has set, nor will: their memory is never touched."""

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.empty(self.shape, dtype)


class _Sparing(np.random.Generator):
    """
    A source of chance for constructors whose parameters are about to be replaced by those of a file.

    It gives arrays without setting them, and only as many and of such shapes as the file has, so that a file cannot
    ask for more memory or time than its own size. Parameters that are made without chance are counted too.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__(np.random.PCG64(0))
        self._shapes = {array.shape for array in arrays.values()}
        self._left = 4 * sum(array.size + 1 for array in arrays.values())  # some is drawn, drawn again, and kept

    def count(self, shape: tuple) -> None:
        if shape in self._shapes:
            self._left -= math.prod(shape) + 1
        if shape not in self._shapes or self._left < 0:
            raise ValueError(f"the description asks for more parameters of shape {shape!s:.80} than there are")

    def _take(self, size: Any) -> np.ndarray:
        shape = tuple(size) if isinstance(size, tuple | list) else (size,)
        self.count(shape)
        return np.empty(shape).view(_Unset)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._take(size)

    def standard_normal(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return self._take(size)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._take(size)

    def random(self, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return self._take(size)


def build(description: Any, arrays: Mapping[str, np.ndarray], rng: int | np.random.Generator | None = None) -> Module:
    """
    Make a module. Nothing but constructors of this package's modules is run.

    Parameters
    ----------
    description : dict
        By `describe`. It need not be trusted.
    arrays : mapping of str to array
        The parameters. Writable and contiguous ones become those of the module as they are, without a copy.
    rng : int, numpy.random.Generator or None
        The source of dropout.

    Raises
    ------
    ValueError
        If the description is no such one, or the arrays are not those that it needs.
    """
    sparing = _Sparing(arrays)
    # What is no shape of two axes is no longer than its module's argument says: so that may not be beyond all reason.
    largest = max(65536, sum(array.size for array in arrays.values()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever made the module has seen them
            module = _built(description, sparing, largest)
        _adopt(module, arrays)
    except (TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError, SyntaxError) as error:
        raise ValueError(f"{type(error).__name__}: {error!s:.300}") from None
    _give(module, sparing, np.random.default_rng(rng))
    return module


def _built(node: Any, sparing: _Sparing, largest: int) -> Any:
    """The value of a part of a description."""
    if isinstance(node, list):
        return [_built(part, sparing, largest) for part in node]
    if not isinstance(node, dict):
        if isinstance(node, int) and abs(node) > largest:
            raise ValueError("the description has a number far beyond the sizes of the arrays")
        return node
    if node.keys() == {"class", "code_points"}:
        return _vocabulary(node["code_points"])
    if node.keys() != {"class", "arguments"} or not isinstance(node["arguments"], dict):
        raise ValueError(f"the description has {sorted(node)!s:.80}, expected class and arguments")
    cls = registry().get(str(node["class"]))
    if cls is None:
        raise ValueError(f"the description is of a {node['class']!r:.80}, which is no module of this package")
    arguments = {str(name): _built(value, sparing, largest) for name, value in node["arguments"].items()}
    if "rng" in arguments:
        raise ValueError("the description has a source of chance, expected none")
    parameters = inspect.signature(cls.__init__).parameters.values()
    several = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    args = arguments.pop(several[0]) if several else ()
    if _draws(cls):
        arguments["rng"] = sparing
    module = cls(*args, **arguments)
    for value in module.params.values():
        sparing.count(value.shape)
    return module


def _draws(cls: type) -> bool:
    """Whether a class takes `rng`, which some hand on to the class they are made of."""
    return any("rng" in inspect.signature(base.__init__).parameters for base in cls.__mro__[:-1])


def _vocabulary(points: Any) -> Any:
    from fastrnn.data import CharVocabulary

    rising = isinstance(points, list) and all(type(point) is int for point in points)
    if not rising or any(a >= b for a, b in itertools.pairwise(points)):
        raise ValueError("the code points of the vocabulary do not rise")
    return CharVocabulary("".join(map(chr, points)))


def _modules(module: Module, name: str = "") -> Iterator[tuple[str, Module]]:
    """A module and all within it, with what stands in front of their parameters' names."""
    yield name, module
    for child, value in vars(module).items():
        if isinstance(value, Module):
            yield from _modules(value, f"{name}{child}.")


def _adopt(module: Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Make arrays a module's parameters: `load_state_dict` without the copy, for modules that nobody has seen yet."""
    expected = {p.name: p.value for p in module.parameters()}
    if expected.keys() != arrays.keys():
        missing, unknown = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
        raise ValueError(f"missing {_some(missing)}, unknown {_some(unknown)}")
    for name, old in expected.items():
        new = arrays[name]
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise ValueError(f"{name}: {new.dtype} {new.shape}, expected {old.dtype} {old.shape}")
    for front, part in _modules(module):
        for name in part.params:
            part.params[name] = np.require(arrays[front + name], requirements=["C", "A", "W"])


def compare(module: Module, again: Module) -> None:
    """ValueError for a module with other parts or settings in it than one that was built of its description."""
    parts, others = (dict(_modules(whole)) for whole in (module, again))
    for name in parts | others:
        part, other = parts.get(name), others.get(name)
        if type(part) is not type(other):
            raise ValueError(f"{name[:-1]}: {type(part).__name__}, built as {type(other).__name__}")
        for setting, value in vars(part).items():
            was = vars(other).get(setting)
            if isinstance(value, PLAIN) and isinstance(was, PLAIN) and value != was:
                raise ValueError(f"{name}{setting}: {value!r}, built as {was!r}")


def _some(names: list[str]) -> str:
    return f"{', '.join(names) or 'none'!s:.120}"


def _give(module: Module, sparing: _Sparing, rng: np.random.Generator) -> None:
    """Put a real source of chance where a sparing one is."""
    for _, part in _modules(module):
        for name, value in vars(part).items():
            if value is sparing:
                part.__dict__[name] = rng
