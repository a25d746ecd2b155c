"""YAML to plain values with positions; overrides, layers and validation of both files."""
