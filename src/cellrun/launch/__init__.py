"""How a kernel process comes to be on this machine, and how it is made to go."""
