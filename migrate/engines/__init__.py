"""The engines that moveout comes with, one module each, and the registry that finds all installed ones."""
