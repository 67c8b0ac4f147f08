"""The networks of the paper and their weights. `deconvnet` and `fcn` import torch alone, so they can be copied out;
`build` makes them from the settings, `weights` loads and saves them, `fuse` makes them fast. The other files may import
`config`, `utils` and `data`.
"""
