"""What is run in a Python of its own to time how the explorer opens: see viewer.py."""

__all__ = ["FIRST", "FRESH", "PARTS"]

FRESH = """
import time
start = time.perf_counter()
from attnlib import explore
{before}
opened = explore("dinov2-small-saliency", "sample:poster", size=(518, 518))
opened._repr_mimebundle_()
print(f"{time.perf_counter() - start:.1f}")
while not opened.viewer.state["a"]["map"]:
    time.sleep(0.01)
print(f"{time.perf_counter() - start:.1f}")
opened.wait()
print(f"{time.perf_counter() - start:.1f}")
"""

PARTS = """
import time
import torch
began = time.process_time()

def done(name):
    global began
    now = time.process_time()
    print(f"{name} | {now - began:.2f}")
    began = now

began = 0.0
done("Python and torch")
from attnlib import explore
done("attnlib (the cell that imports)")
from attnlib.widgets.beforehand import STEPS
*model, finders = STEPS
for step in model:
    step()
done("transformers and what it loads")
finders()
done("the libraries that read text and find faces")
from attnlib import capture, explain, load_model
from attnlib.finders import find_regions
from attnlib.widgets import viewer
loaded = load_model("dinov2-small-saliency")
done("weights into the model")
prepared = loaded.prepare("sample:poster", size=(518, 518))
record = capture(loaded, prepared)
done("capture: one pass of the model")
light = viewer(record, "sample:poster", budget_mb=0)
done("packing the first picture: a row of every layer and head")
light.to_html()
done("writing it")
explain(record)
done("rollout")
from attnlib.picture import load_picture
find_regions(load_picture("sample:poster"))
done("finding text and faces")
"""

FIRST = {
    "the first of these from a fresh Python, all imports included": "",
    "the first of these in a cell after the one that imports attnlib, at once": "start = time.perf_counter()",
    "the same, when the notebook has rested (libraries are loaded between two cells)": (
        "from attnlib.widgets.beforehand import STEPS\nfor step in STEPS: step()\nstart = time.perf_counter()"
    ),
}
