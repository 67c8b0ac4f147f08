"""How the pipeline is run: checks before it starts, DVC, notebooks as stages, provenance, verification, and the results
of long runs. May import everything; nothing imports it.
"""
