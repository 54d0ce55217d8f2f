"""JAX, Keras and thinc, as `libraries` says."""

import importlib
import os

import numpy as np

from .libraries import Library

# Where Keras's gate blocks (GRU z r h) are among PyTorch's (r z n), and the other way round; the LSTM's are the same.
GRU_ORDER = [1, 0, 2]


def _without_dispatch_thread():
    """JAX, each call of which then runs in the thread that calls: on a CPU that is faster for small work."""
    jax = importlib.import_module("jax")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return jax


class JAX(Library):
    """``lax.scan`` under ``jit``, the input projections one product before it, weights transposed beforehand.

    Training is ``jax.vjp`` under ``jit``. The pools of XLA are as large as the CPUs the process may use.
    """

    key, name = "jax", "JAX"

    def __init__(self, threads):
        super().__init__(threads)
        self.jax = _without_dispatch_thread()

    def _function(self, cell):
        jax, jnp = self.jax, self.jax.numpy
        sigmoid, tanh = jax.nn.sigmoid, jnp.tanh

        def rnn_step(states, projected, w_hh, b_hh):
            return (tanh(projected + states[0] @ w_hh + b_hh),)

        def lstm_step(states, projected, w_hh, b_hh):
            h, c = states
            i, f, g, o = jnp.split(projected + h @ w_hh + b_hh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            return sigmoid(o) * tanh(c), c

        def gru_step(states, projected, w_hh, b_hh):
            (h,) = states
            ir, iz, i_n = jnp.split(projected, 3, axis=1)
            hr, hz, hn = jnp.split(h @ w_hh + b_hh, 3, axis=1)
            z = sigmoid(iz + hz)
            return ((1 - z) * tanh(i_n + sigmoid(ir + hr) * hn) + z * h,)

        step = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}[cell]

        def forward(x, states, w_ih, w_hh, b_ih, b_hh):
            def body(states, projected):
                states = step(states, projected, w_hh, recurrent_bias)
                return states, states[0]

            # The biases of the RNN and the LSTM only ever appear as their sum.
            input_bias, recurrent_bias = (b_ih, b_hh) if cell == "gru" else (b_ih + b_hh, 0)
            states, y = jax.lax.scan(body, states, x @ w_ih + input_bias)
            return y, *states

        return forward

    def _arguments(self, problem):
        put = self.jax.numpy.array  # a copy
        x, w_ih, w_hh, b_ih, b_hh = map(put, (problem.x, problem.w_ih.T, problem.w_hh.T, problem.b_ih, problem.b_hh))
        return x, tuple(map(put, problem.states)), w_ih, w_hh, b_ih, b_hh

    def build(self, problem):
        run, arguments, ready = (
            self.jax.jit(self._function(problem.cell)),
            self._arguments(problem),
            self.jax.block_until_ready,
        )
        return lambda: ready(run(*arguments))

    def build_training(self, problem):
        jax, forward = self.jax, self._function(problem.cell)

        @jax.jit
        def run(arguments, dy):
            _, backward = jax.vjp(lambda *a: forward(*a)[0], *arguments)
            return backward(dy)

        arguments, dy, ready = self._arguments(problem), jax.numpy.array(problem.dy), jax.block_until_ready
        return lambda: ready(run(arguments, dy))

    def gradients(self, problem, result):
        dx, dstates, dw_ih, dw_hh, db_ih, db_hh = result
        return [np.array(a) for a in (dx, *dstates, dw_ih.T, dw_hh.T, db_ih, db_hh)]


class Keras(Library):
    """``keras.layers.LSTM``, ``GRU`` and ``SimpleRNN`` on batch-major arrays, compiled by the backend.

    The backend is KERAS_BACKEND, "jax" (the fastest here where it is installed) or "tensorflow". The LSTM and the
    SimpleRNN have one bias, the sum of ours.
    """

    key, name = "keras", "Keras"

    def __init__(self, threads):
        super().__init__(threads)
        self.backend = os.environ.get("KERAS_BACKEND") or ("jax" if importlib.util.find_spec("jax") else "tensorflow")
        if self.backend not in ("jax", "tensorflow"):
            raise ImportError(f"its backend {self.backend} is not among those compared, jax and tensorflow")
        os.environ["KERAS_BACKEND"] = self.backend
        if self.backend == "jax":
            self.jax = _without_dispatch_thread()
        else:
            self.tf = importlib.import_module("tensorflow")
            self.tf.config.threading.set_intra_op_parallelism_threads(threads)
            self.tf.config.threading.set_inter_op_parallelism_threads(1)
        self.keras = importlib.import_module("keras")

    def version(self):
        backend = self.jax if self.backend == "jax" else self.tf
        return f"{self.keras.__version__} on {self.backend} {backend.__version__}"

    def _layer(self, problem):
        T, B, I, H = problem.shape
        layers = self.keras.layers
        layer = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[problem.cell](
            H, return_sequences=True, return_state=True
        )
        layer.build((B, T, I))
        w_ih, w_hh, b_ih, b_hh = (self._blocks(problem, a) for a in problem.arguments[-4:])
        bias = np.stack([b_ih, b_hh]) if problem.cell == "gru" else b_ih + b_hh
        layer.set_weights([w_ih.T, w_hh.T, bias])
        return layer, np.ascontiguousarray(problem.x.swapaxes(0, 1))

    @staticmethod
    def _blocks(problem, a):
        """`a` with its gate blocks in Keras's order, or back in ours."""
        if problem.cell != "gru":
            return a
        return a.reshape(3, -1, *a.shape[1:])[GRU_ORDER].reshape(a.shape)

    def build(self, problem):
        layer, x = self._layer(problem)
        if self.backend == "jax":
            jax = self.jax
            weights, others = (
                [v.value for v in vs] for vs in (layer.trainable_variables, layer.non_trainable_variables)
            )
            call = jax.jit(lambda w, x, *states: layer.stateless_call(w, others, x, initial_state=[*states])[0])
            arrays, ready = [jax.numpy.array(a) for a in (x, *problem.states)], jax.block_until_ready
            return lambda: ready(call(weights, *arrays))
        tensors = [self.tf.constant(a) for a in (x, *problem.states)]
        function = self.tf.function(lambda x, *states: layer(x, initial_state=[*states]), jit_compile=True)
        concrete = function.get_concrete_function(*tensors)
        return lambda: concrete(*tensors)

    def outputs(self, problem, result):
        y, *states = (np.array(a) for a in result)
        return [y.swapaxes(0, 1), *states]

    def build_training(self, problem):
        layer, x = self._layer(problem)
        dy = np.ascontiguousarray(problem.dy.swapaxes(0, 1))
        if self.backend == "jax":
            jax = self.jax
            others = [v.value for v in layer.non_trainable_variables]

            @jax.jit
            def step(arguments, dy):
                def forward(weights, x, *states):
                    return layer.stateless_call(weights, others, x, initial_state=[*states])[0][0]

                _, backward = jax.vjp(forward, *arguments)
                dweights, *rest = backward(dy)
                return *rest, *dweights

            weights = [v.value for v in layer.trainable_variables]
            arguments = [weights, *(jax.numpy.array(a) for a in (x, *problem.states))]
            dy, ready = jax.numpy.array(dy), jax.block_until_ready
            return lambda: ready(step(arguments, dy))
        tf = self.tf
        tensors, dy = [tf.constant(a) for a in (x, *problem.states)], tf.constant(dy)

        @tf.function(jit_compile=True)
        def step(x, *states):
            with tf.GradientTape() as tape:
                tape.watch([x, *states])
                y = layer(x, initial_state=[*states])[0]
            return tape.gradient(y, [x, *states, *layer.trainable_variables], output_gradients=dy)

        concrete = step.get_concrete_function(*tensors)
        return lambda: concrete(*tensors)

    def gradients(self, problem, result):
        dx, *dstates, dw_ih, dw_hh, db = (np.array(a) for a in result)
        biases = db if problem.cell == "gru" else (db, db)
        weights = (self._blocks(problem, a) for a in (dw_ih.T, dw_hh.T, *biases))
        return [dx.swapaxes(0, 1), *dstates, *weights]


class Thinc(Library):
    """The LSTM of ``thinc.api.NumpyOps``, forward and backward, on one thread.

    Its gradients are not those of the equations, so they are not compared: only its time counts.
    """

    key, name = "thinc", "thinc"
    parts = ("train",)
    cells = ("lstm",)
    compared = False

    def __init__(self, threads):
        super().__init__(threads)
        self.ops = importlib.import_module("thinc.api").NumpyOps()

    def build_training(self, problem):
        T, B, I, H = problem.shape
        parameters = np.concatenate([a.ravel() for a in (problem.w_ih, problem.b_ih, problem.w_hh, problem.b_hh)])
        h0, c0 = (np.zeros((1, 1, H), np.float32) for _ in range(2))  # of all sequences
        x, dy = problem.x.reshape(T * B, I), problem.dy.reshape(T * B, H)
        size_at_t = np.full(T, B, np.int32)
        forward, backward = self.ops.lstm_forward_training, self.ops.backprop_lstm

        def run():
            _, cache = forward(parameters, h0, c0, x, size_at_t)
            return backward(dy, size_at_t, parameters, cache)

        return run
