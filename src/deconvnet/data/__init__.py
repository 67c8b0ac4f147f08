"""Data sets: the VOC layout, its check, and the sources that write it (icon scenes, a folder, VOC 2012 with SBD).
Imports `config` and `utils`.
"""
