"""Instructions and preferences from files in the forms that people have: recognised, checked, put into a chat template.

``recipe`` (settings), ``forms`` (rows to messages), ``template`` (messages to text),
``pairs`` (what is wrong with preferences), ``lengths`` (tokens, truncation, packing), ``export`` (forms of other back
ends), ``build`` (the order of it all). Rows are held in memory: such data sets have at most some millions.
"""
