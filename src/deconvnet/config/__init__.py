"""Where files lie, what can be set, and how errors read. Settings of the experiment are `params`, those of the machine
are `machine`. Imports nothing else of this package.
"""
