"""Tasks of lm-evaluation-harness: ``index`` finds one by its name without importing the package."""
