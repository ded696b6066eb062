"""The steps of a build, each a plain function from what it needs to what it made.

Steps whose result is worth keeping put it into the cache; none keeps state of its own. Heavy
packages are imported inside the step that needs them, so that a build with nothing to do starts
and ends without them.
"""
