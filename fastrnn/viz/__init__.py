"""Pictures of training, sequences and networks, drawn with matplotlib (the extra `plot`)."""

from fastrnn.viz.network import unrolled
from fastrnn.viz.sequences import attention, forecast, gates, hidden_states
from fastrnn.viz.training import gradient_flow, gradient_over_time, loss_history

__all__ = [
    "attention",
    "forecast",
    "gates",
    "gradient_flow",
    "gradient_over_time",
    "hidden_states",
    "loss_history",
    "unrolled",
]
