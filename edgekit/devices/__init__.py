"""Devices over ssh: registered, checked, deployed to, measured on.

`registry` and `session` are the host's side of a connection; `link` is its wire, and `answers`
takes apart what comes back, of which nothing is believed. `remote/agent`, `remote/facts` and
`remote/files` run on the device under whatever Python it has, are sent there with every
connection, and stay nowhere. `remote/place` and `remote/serve` run there in the runtime that
`install` makes.
"""
