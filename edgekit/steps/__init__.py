"""The steps of a build, each a plain function from its inputs to its result.

Expensive results go into the cache; no step keeps state of its own. Heavy packages are imported
inside the step that needs them, so a build with nothing to do never loads them.
"""
