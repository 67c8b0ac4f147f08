"""From pictures to tensors and back: the cache of decoded images, boxes, crops, training batches, and the maps that
networks leave on disk. Imports `config`, `utils` and `data`.
"""
