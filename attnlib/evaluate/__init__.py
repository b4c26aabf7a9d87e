"""Evidence beside the maps: comparison, perturbation, localisation, randomisation, artifacts."""
