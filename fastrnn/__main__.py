"""The command line: ``python -m fastrnn demo | generate | convert | inspect | info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastrnn import __version__


def demo(args: argparse.Namespace) -> int:
    """Train a character model and sample from it."""
    from fastrnn import _demo

    settings = _demo.Settings(
        text=args.text, out=args.out, prompt=args.prompt, temperature=args.temperature, seed=args.seed
    )
    if args.quick:
        settings.quick()
    if args.epochs is not None:
        settings.epochs = args.epochs
    return _demo.run(settings)


def generate(args: argparse.Namespace) -> int:
    """Sample from saved weights."""
    from fastrnn._demo import write
    from fastrnn.models import CharModel

    write(CharModel.load(args.weights), args.prompt, args.length, args.temperature, args.seed)
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write the layer or model of one file into another, of the format that its ending says."""
    from fastrnn import _convert

    _convert.convert(args.source, args.target, args.layer, args.nonlinearity)
    print(_convert.inspect(args.target))
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Say what is in a file: its configuration, names, shapes, dtypes and sizes."""
    from fastrnn import _convert

    print(_convert.inspect(args.file))
    return 0


def info(args: argparse.Namespace) -> int:
    """Say what runs here, and why."""
    from fastrnn import show_config

    show_config()
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}, expected a whole number from 1")
    return number


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m fastrnn", description="Recurrent networks on the CPU.")
    top.add_argument("--version", action="version", version=f"fastrnn {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("demo", help=str(demo.__doc__), description=demo.__doc__)
    command.add_argument("--text", metavar="FILE", help="UTF-8 text to learn; default: Python's language reference")
    command.add_argument(
        "--out",
        metavar="PREFIX",
        default="fastrnn-demo",
        help="name of the .npz and .png without the ending (%(default)s)",
    )
    command.add_argument("--quick", action="store_true", help="a small model on less text, in a few seconds")
    command.add_argument("--epochs", type=_count, metavar="N", help="how often to go through the text")
    command.set_defaults(run=demo)

    other = commands.add_parser("generate", help=str(generate.__doc__), description=generate.__doc__)
    other.add_argument("weights", metavar="WEIGHTS", help="the .npz file that the demo saved")
    other.add_argument("--length", metavar="N", type=_count, default=500, help="how many characters (%(default)s)")
    other.set_defaults(run=generate)
    for sampling in (command, other):
        sampling.add_argument(
            "--prompt", default="The ", metavar="TEXT", help="what the text starts with (%(default)r)"
        )
        sampling.add_argument(
            "--temperature", metavar="X", type=float, default=0.6, help="0: the likeliest (%(default)s)"
        )
        sampling.add_argument("--seed", metavar="N", type=int, default=0, help="another, another text (%(default)s)")

    command = commands.add_parser("convert", help=str(convert.__doc__), description=convert.__doc__)
    kinds = ".safetensors, .npz, .keras, .h5, .hdf5 or .onnx"
    command.add_argument("source", metavar="IN", help=f"{kinds}: a module of this package, or what the others have")
    command.add_argument("target", metavar="OUT", help=kinds)
    command.add_argument(
        "--layer",
        metavar="NAME",
        action="append",
        default=[],
        help="which layer of IN, if it has several; given twice or more, they make a stack",
    )
    command.add_argument(
        "--nonlinearity",
        choices=("tanh", "relu"),
        default="tanh",
        help="of an RNN in a state_dict",
    )
    command.set_defaults(run=convert)

    command = commands.add_parser("inspect", help=str(inspect.__doc__), description=inspect.__doc__)
    command.add_argument("file", metavar="FILE", help=kinds)
    command.set_defaults(run=inspect)

    command = commands.add_parser("info", help=str(info.__doc__), description=info.__doc__)
    command.set_defaults(run=info)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code, 2 for bad input."""
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"fastrnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names and texts have letters that an old console has not
    sys.exit(main())
