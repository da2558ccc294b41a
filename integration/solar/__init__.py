"""The solar system for the role *simulation*: states and references from DE421, and the bound."""
