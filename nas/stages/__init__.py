"""What may follow a search in one command: refining members of its front, distilling them, and the front of all that comes of it."""
