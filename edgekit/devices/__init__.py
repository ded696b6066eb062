"""Devices over ssh: registered, checked, deployed to, measured on.

`registry` and `session` are the host's side of a connection. `agent`, `facts` and `receiving` run
on the device under whatever Python it has, are sent there with every connection, and stay nowhere.
`place`, `selftest` and `serve` run there in the runtime that `install` makes.
"""
