"""Show why Falcon's own attentions are not those of its plain forward pass.

Asked for attentions, the library adds its boolean causal mask to the scores as a number: a token that may be
seen gets +1, and none is hidden. Its hidden states change with it.
"""

from __future__ import annotations

import torch


def main() -> None:
    """Compare the plain pass, the pass that is asked for attentions, and what was captured."""
    from transformers import FalconConfig, FalconModel

    from attnlib import capture

    torch.manual_seed(0)
    config = FalconConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=61)
    model = FalconModel(config).eval()
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        plain = model(input_ids=ids).last_hidden_state
        asked = model(input_ids=ids, output_attentions=True)
    changed = (asked.last_hidden_state - plain).abs().max().item()
    theirs = asked.attentions[0]
    ours = capture(model, {"input_ids": ids}).layers[0].weights()
    causal = torch.ones(7, 7).tril()
    unmasked = theirs / torch.exp(causal)  # take the +1 back: proportional to exp(scores) everywhere
    masked = unmasked * causal
    masked = masked / masked.sum(-1, keepdim=True)
    print(f"hidden states change by up to {changed:.2f} when attentions are asked for")
    print(f"weight on hidden tokens in the first row of the library's: {theirs[0, 0, 0, 1:].sum():.2f}")
    print(f"theirs, with the mask applied as a mask, against captured: {(masked - ours).abs().max():.1e}")


if __name__ == "__main__":
    main()
