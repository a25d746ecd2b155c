"""JSON Schemas of what people write and programs read, made of the typed classes: for editors (``overnight schema``).

They say less than the readers: what two keys must be together, and what names refer to, only the readers know.
"""
