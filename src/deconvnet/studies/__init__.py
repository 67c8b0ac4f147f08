"""The long studies: DeconvNet, FCN-8s and their variants (arms) at several training budgets and seeds, on 1,000 scenes.
Imports `config` to `report`.
"""
