"""Tasks of lm-evaluation-harness: ``index`` finds one by its name without importing the package (the planner asks it),
``engine`` answers its requests with our own forward passes.
"""
