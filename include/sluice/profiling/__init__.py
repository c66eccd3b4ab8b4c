"""Look at a real source, within bounds, and say what a declaration of it would be: `sluice source add`."""
