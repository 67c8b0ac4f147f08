"""Inference (section 5): proposal-wise prediction and its aggregation (5.1), the ensemble with FCN-8s (5.2), and the
dense CRF (5.1). Imports `config` to `networks`.
"""
