"""The models of the reference values, loaded and captured once for all tests of the methods."""

import functools

import pytest
import torch


@pytest.fixture(scope="session")
def load(reference):
    """load(name, class name, dtype) -> (model, inputs, values). The models are shared: copy before a change."""
    import transformers

    @functools.cache
    def one(name, cls, dtype=torch.float64):
        model = getattr(transformers, cls).from_pretrained(reference.model_dir(name)).eval().to(dtype)
        values = reference.model(name)
        names = ("pixel_values", "input_ids", "attention_mask")
        inputs = {k: torch.tensor(v) for k, v in values["input"].items() if k in names}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        return model, inputs, values

    return one


@pytest.fixture(scope="session")
def captured(load):
    """captured(name, class name, dtype) -> (record with gradients and internals, inputs, values)."""
    from attnlib import capture

    @functools.cache
    def one(name, cls, dtype=torch.float64):
        model, inputs, values = load(name, cls, dtype)
        target = values["input"]["target"].tolist()
        return capture(model, inputs, target=target, internals=True), inputs, values

    return one
