"""How fast the engine is: measured, against floors, and against peers side by side."""
