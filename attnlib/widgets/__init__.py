"""Explorers for JupyterLab and the viewer that also works without a kernel."""
