"""Reads a run and changes nothing: state, reasons, reports. Imports render and below."""
