"""Makes a bare Debian or Ubuntu machine ready. Only the standard library: nothing is installed yet when it runs.

Order: Debian packages (debian) → .venv with the pinned wheels and this project (python, uv) → node and npm (node) → a
browser (browser) → the dashboard (dashboard) → the peers of the benches (peers). Each part first looks whether anything
is missing, does nothing when not, and says one line when it acts.
"""
