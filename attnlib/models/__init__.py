"""load_model: hub, local folder, timm, torchvision, and the models that need no network."""
