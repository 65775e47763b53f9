"""The SDK, synchronous: `skyinfra/__init__.py` maps the public names to the modules here.

``transport`` is the only module that speaks HTTP, ``endpoint`` decides with whom, ``server_process`` starts a local
server; ``requests`` and ``stream`` wait for what was asked; ``clusters``, ``logs`` and ``api`` are the verbs;
``files`` packs what travels; ``decode`` turns JSON into what callers read. Nothing here prints, except where a verb's
contract is to print (logs, `stream_and_get`), and nothing here decides: the server does.
"""
