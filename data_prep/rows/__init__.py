"""Instructions and preferences from files in the forms that people have: recognised, checked, stored as messages.

``recipe`` (settings), ``messages`` and ``forms`` (rows to conversations; no field is
dropped), ``drafts`` (conversations to the rows that are stored), ``checks`` and ``pairs`` (what is dropped or counted),
``lengths`` (packing), ``export`` (forms of other back ends), ``build`` (the order of it all). Ids are made by
``jobs.encoding``, as the trainers make them. Rows are held in memory: such data sets have at most some millions.
"""
