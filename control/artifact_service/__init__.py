"""Files that missions take and make: bytes by digest, and the list of what runs made."""
