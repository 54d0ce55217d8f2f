"""fastrnn and the libraries beside it, each in the fastest way it offers to run one layer on arrays that are there.

Every class is told its number of threads before its library starts any, and raises ImportError where the library is
not installed. `build` prepares a problem and returns the function that is timed, `outputs` turns what that returned
into NumPy arrays ``y, h_n, (c_n)`` to be compared; `build_training` and `gradients` do the same for a forward and a
backward pass, with the gradients of ``x, h0, (c0,) w_ih, w_hh, b_ih, b_hh``. Inputs and weights are converted to a
library's own arrays and layouts beforehand.
"""

import importlib
import importlib.metadata
from functools import partial

import numpy as np

import fastrnn

from .onnx_model import one_node_model
from .problem import CELLS


class Library:
    """What all have in common."""

    key: str  # on the command line
    name: str  # in the table
    parts: tuple[str, ...] = ("forward", "train")
    cells: tuple[str, ...] = CELLS
    compared = True  # whether the gradients have to be right
    team = False  # whether its threads work beside the one that calls, one fewer than it was told

    def __init__(self, threads):
        self.threads = threads

    def version(self):
        return importlib.metadata.version(self.key)

    def outputs(self, problem, result):
        return [np.array(a) for a in result]

    def gradients(self, problem, result):
        return [np.array(a) for a in result if a is not None]


class FastRNN(Library):
    """A frozen layer called with arrays; for training the two functions, whose gradients are fresh arrays."""

    key, name, team = "fastrnn", "fastrnn", True
    parts = ("forward", "train", "float64", "stream", "ragged")

    def version(self):
        config = fastrnn.get_config()
        return f"{fastrnn.__version__}, engine {config['engine']}, {config['isa']}, {config['blas']}"

    @staticmethod
    def frozen(problem):
        _, _, I, H = problem.shape
        layer = getattr(fastrnn, problem.cell.upper())(I, H, dtype=problem.dtype)
        layer.load_state_dict(problem.state_dict)
        return layer.freeze()

    @staticmethod
    def state(problem):
        state = tuple(s[None] for s in problem.states)
        return state if len(state) > 1 else state[0]

    def build(self, problem):
        return partial(self.frozen(problem), problem.x, self.state(problem))

    def outputs(self, problem, result):
        y, state = result
        return [y, *(s[0] for s in (state if isinstance(state, tuple) else (state,)))]

    def build_training(self, problem):
        forward = getattr(fastrnn.functional, f"{problem.cell}_forward")
        backward = getattr(fastrnn.functional, f"{problem.cell}_backward")
        arguments, dy = problem.arguments, problem.dy

        def run():
            *_, cache = forward(*arguments)
            return backward(cache, dy)

        return run


class PyTorch(Library):
    """``torch.nn.LSTM``, ``GRU`` and ``RNN`` in inference mode; for training ``torch.autograd.grad``."""

    key, name, team = "torch", "PyTorch", True
    parts = ("forward", "train", "float64")

    def __init__(self, threads):
        super().__init__(threads)
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        self.torch.set_num_interop_threads(1)

    def version(self):
        return self.torch.__version__

    def _layer(self, problem):
        _, _, I, H = problem.shape
        tensor = self.torch.from_numpy
        layer = getattr(self.torch.nn, problem.cell.upper())(I, H, dtype=tensor(problem.x).dtype)
        layer.load_state_dict({name: tensor(value) for name, value in problem.state_dict.items()})
        x, *states = (tensor(a.copy()) for a in (problem.x, *(s[None] for s in problem.states)))
        return layer, x, states, tuple(states) if len(states) > 1 else states[0]

    def build(self, problem):
        layer, x, _, state = self._layer(problem)
        layer.eval()
        inference_mode = self.torch.inference_mode

        def run():
            with inference_mode():
                return layer(x, state)

        return run

    def outputs(self, problem, result):
        y, state = result
        return [y.numpy(), *(s[0].numpy() for s in (state if isinstance(state, tuple) else (state,)))]

    def build_training(self, problem):
        layer, x, states, state = self._layer(problem)
        for tensor in (x, *states):
            tensor.requires_grad_()
        wanted, dy, grad = (
            [x, *states, *layer.parameters()],
            self.torch.from_numpy(problem.dy),
            self.torch.autograd.grad,
        )
        return lambda: grad(layer(x, state)[0], wanted, dy)

    def gradients(self, problem, result):
        dx, *rest = (g.numpy() for g in result)
        states = len(problem.states)
        return [dx, *(d[0] for d in rest[:states]), *rest[states:]]


class ONNXRuntime(Library):
    """A model of one LSTM, GRU or RNN node called with arrays, ``session.run``."""

    key, name, team = "onnxruntime", "ONNX Runtime", True
    parts = ("forward", "stream")

    def __init__(self, threads):
        super().__init__(threads)
        importlib.import_module("onnx")
        self.library = importlib.import_module("onnxruntime")

    def version(self):
        return self.library.__version__

    def session(self, problem):
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        return self.library.InferenceSession(one_node_model(problem), options, providers=["CPUExecutionProvider"])

    def build(self, problem):
        session = self.session(problem)
        names, arrays = [i.name for i in session.get_inputs()], [problem.x, *(s[None] for s in problem.states)]
        return partial(session.run, None, dict(zip(names, arrays, strict=True)))

    def outputs(self, problem, result):
        y, *states = result
        return [y[:, 0], *(s[0] for s in states)]


class ONNXRuntimeBound(ONNXRuntime):
    """The same with inputs and outputs bound to memory beforehand: no array is passed, none is made."""

    key, name = "onnxruntime-bound", "ONNX Runtime, bound"

    def value(self, array):
        """An `OrtValue` with a copy of the array."""
        return self.library.OrtValue.ortvalue_from_numpy(array.copy())

    def bind(self, session, inputs, outputs):
        """The function that runs a session on these `OrtValue`, in its own order, and returns the outputs."""
        binding = session.io_binding()
        for place, value in zip(session.get_inputs(), inputs, strict=True):
            binding.bind_ortvalue_input(place.name, value)
        for place, value in zip(session.get_outputs(), outputs, strict=True):
            binding.bind_ortvalue_output(place.name, value)
        run = session.run_with_iobinding

        def bound():
            run(binding)
            return outputs

        return bound

    def build(self, problem):
        T, B, _, H = problem.shape
        states = [self.value(s[None]) for s in problem.states]
        outputs = [self.value(np.empty((T, 1, B, H), np.float32)), *(self.value(s[None]) for s in problem.states)]
        return self.bind(self.session(problem), [self.value(problem.x), *states], outputs)

    def outputs(self, problem, result):
        return super().outputs(problem, [np.array(value.numpy()) for value in result])


class OpenVINO(Library):
    """The same model, compiled for the CPU's lowest latency in float32, with inputs bound to memory."""

    key, name = "openvino", "OpenVINO"
    parts = ("forward",)

    def __init__(self, threads):
        super().__init__(threads)
        importlib.import_module("onnx")
        self.library = importlib.import_module("openvino")
        self.core = self.library.Core()

    def build(self, problem):
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = self.core.compile_model(self.core.read_model(one_node_model(problem)), "CPU", settings)
        request = model.create_infer_request()
        for k, array in enumerate([problem.x, *(s[None] for s in problem.states)]):
            request.set_input_tensor(k, self.library.Tensor(array, shared_memory=True))
        tensors = [request.get_output_tensor(k) for k in range(len(model.outputs))]

        def run():
            request.infer()
            return tensors

        return run

    def outputs(self, problem, result):
        y, *states = (np.array(tensor.data) for tensor in result)
        return [y[:, 0], *(s[0] for s in states)]
