"""Cluster profiles that come with Overnight, found through importlib.resources."""
