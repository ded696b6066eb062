"""Devices over ssh: registered, checked, deployed to, measured on.

`registry` and `session` are the host's side of a connection; `link` is its wire, and `answers`
validates everything that comes back. `remote/agent`, `remote/facts` and `remote/files` are sent to
the device with every connection, run under whatever Python it has, and are never stored there.
`remote/place` and `remote/serve` run in the runtime that `install` sets up.
"""
