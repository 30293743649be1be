"""The commands a person types: each module parses one command line and prints what came of it.

Its docstring is the help, ``configure`` adds the arguments, ``run`` does what they say.
"""
