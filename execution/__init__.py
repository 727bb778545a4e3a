"""The execution plane: workers act and never decide. They dial the control plane and need no open port."""
