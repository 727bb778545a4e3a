"""The orchestrator owns runs: it folds their journals, lets the core decide, and has workers act.

It calls the policy engine before every attempt and serves the stream that workers dial. All it holds in memory can be
lost: after kill -9 the next owner folds the same journal, and workers say what became of what was open.
"""
