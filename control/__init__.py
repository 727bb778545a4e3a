"""The control plane: it decides and never acts. services.py lists its services; core holds every decision."""
