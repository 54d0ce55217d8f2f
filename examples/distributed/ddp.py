"""
Data-parallel training with PyTorch's DistributedDataParallel: the losses of several processes are those of one.

    python examples/distributed/ddp.py --processes 2 4

A GRU on fastrnn's kernels and a linear head learn which half of a sequence has the larger sum. Every process takes its
share of each batch and holds a copy of the model; DDP averages the gradients while the backward pass runs. A batch is
the same however many processes share it, and so, up to rounding, is the run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import fastrnn
from fastrnn.interop import torch as interop

T, BATCH, SIZE, HIDDEN = 40, 32, 8, 64
ALLOWED = 1e-5  # between the losses of one process and several


class Model(torch.nn.Module):
    """A GRU, and a decision from its last output."""

    def __init__(self):
        super().__init__()
        self.rnn = interop.GRU(SIZE, HIDDEN, num_layers=2, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits (B, 2) of x (B, T, I)."""
        return self.head(self.rnn(x)[0][:, -1])


def train(rank: int, processes: int, steps: int, folder: str) -> None:
    """One process of several; the first saves the losses of whole batches."""
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)  # of each process
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = DistributedDataParallel(Model())
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    data = torch.Generator().manual_seed(1)
    losses, start = [], time.perf_counter()
    for _ in range(steps):
        x = torch.randn(BATCH, T, SIZE, generator=data)
        label = (x[:, : T // 2].sum((1, 2)) > x[:, T // 2 :].sum((1, 2))).long()
        mine = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[mine]), label[mine])
        loss.backward()
        optimiser.step()
        whole = loss.detach() / processes
        dist.all_reduce(whole)
        losses.append(whole)
    if rank == 0:
        torch.save((torch.stack(losses), time.perf_counter() - start), Path(folder) / "losses")
    dist.destroy_process_group()


def run(processes: int, steps: int) -> tuple[torch.Tensor, float]:
    """The losses with so many processes, and the seconds that the steps took."""
    with tempfile.TemporaryDirectory() as folder:
        if processes == 1:
            train(0, 1, steps, folder)
        else:
            torch.multiprocessing.spawn(train, (processes, steps, folder), nprocs=processes)
        return torch.load(Path(folder) / "losses")


def main() -> int:
    """Compare with one process; 1 if the losses are others."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], metavar="N", help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="5 steps, not 100")
    options = parser.parse_args()
    if wrong := [n for n in options.processes if n < 1 or BATCH % n]:
        parser.error(f"--processes: {wrong}, expected divisors of the batch of {BATCH}")
    steps = 5 if options.quick else 100
    worst, wanted = 0.0, None
    for processes in sorted({1, *options.processes}):
        losses, seconds = run(processes, steps)
        wanted = losses if wanted is None else wanted
        differ = float((losses - wanted).abs().max())
        worst = max(worst, differ)
        print(
            f"{processes} process{'es' * (processes > 1)}: loss {losses[0]:.4f} to {losses[-1]:.4f}, "
            f"{steps * BATCH / seconds:.0f} sequences a second, losses differ by {differ:.1e} at most"
        )
    return int(not worst <= ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
