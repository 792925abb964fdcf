"""The TDS model and its derivatives: one interface, an OpenCL engine and a plain numpy one behind it."""
