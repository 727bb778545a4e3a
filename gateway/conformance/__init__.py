"""Whether a worker keeps the worker protocol: a control plane that tries each rule on it and says what it saw.

`docs/workers/protocol.md` states the rules; every check here bears the name that it has there.
"""
