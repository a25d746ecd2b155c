"""Jinja2 templates of job scripts, found through importlib.resources."""
