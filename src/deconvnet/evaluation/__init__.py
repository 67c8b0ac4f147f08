"""Measures (section 6.2) and what follows from them: the five methods on val, counts for each image, estimates over
images and trainings, where the errors are and which part makes them. Imports `config` to `inference`.
"""
