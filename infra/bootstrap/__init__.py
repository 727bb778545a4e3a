"""Makes a bare Debian or Ubuntu machine ready. Only the standard library: nothing is installed yet when it runs.

Order: Debian packages (debian) → uv, .venv, pinned wheels, this project (python) → node and npm (node) → a browser
(browser) → the dashboard (dashboard). Each part first looks whether anything is missing, does nothing when not, and
says one line when it acts.
"""
