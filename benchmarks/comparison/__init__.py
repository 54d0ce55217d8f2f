"""The parts of `benchmarks/peers.py`: what is run, by whom, how it is timed, the machine's limits, the report."""
