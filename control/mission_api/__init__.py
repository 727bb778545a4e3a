"""The front door: takes missions, starts and controls runs, shows them, and asks people."""
