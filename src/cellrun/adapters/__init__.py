"""cellrun for the frameworks that agents are built with: one module for each, which imports that framework."""
