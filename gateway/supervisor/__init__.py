"""`skyagent up`: starts the control plane, Envoy and the workers, and starts again whichever dies.

It decides nothing about missions and holds no state of its own: killed at any moment, it leaves no process behind that
the next `up` does not find and end.
"""
