"""The command line: one file per noun, loaded only when it is asked for, so that `--help` answers at once.

Everything but up, down, status, serve, worker and doctor speaks gRPC to the gateway, like any other client.
Exit codes: 0 succeeded, 1 failed, 2 usage, 3 waits for a person, 4 denied, 5 budget or deadline, 69 unavailable,
130 interrupted.
"""
