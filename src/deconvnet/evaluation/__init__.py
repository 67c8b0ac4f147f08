"""Measures (section 6.2) and what follows from them: the five methods on val, counts for each image and the bootstrap
over them, the paper's claims, the tolerance between runs. Imports `config` to `inference`.
"""
