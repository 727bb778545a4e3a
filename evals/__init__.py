"""What the mesh is tried on, and the judges that took no part in it."""
