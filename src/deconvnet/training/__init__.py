"""Training (sections 4.1, 4.2 and 6.1 of the paper): examples, the solver, one loop for every network, recipes that put
them together, and a script with which several processes share a training. Imports `config` to `networks`.
"""
