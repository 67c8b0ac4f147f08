"""The paper's claims: how each is measured and judged, the curves behind them, and how much trainings differ by seed.
Imports `config` to `evaluation`.
"""
