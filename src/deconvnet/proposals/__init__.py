"""Object proposals (section 3.3 of the paper): edges, Edge Boxes, and the boundary detector. Imports `config` to
`networks`, and `training` for the detector.
"""
