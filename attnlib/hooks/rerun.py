"""Run a captured forward pass again: from a changed start, with taps, or with other rules inside.

The model is borrowed for each run and given back as it came: parameters take part as detached
tensors, so that no gradient reaches them and no flag is changed; what is put in the way of the
forward pass is a function mode of this thread, and hooks that are removed when the run ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attnlib.errors import CaptureError, InputError, NeedsError
from attnlib.hooks.internals_flow import bare_name
from attnlib.hooks.targets import target_score

__all__ = ["Rerun", "Tap"]

_DECODER_WORDS = ("decoder_input_ids",)


@dataclass(frozen=True, eq=False)
class Tap:
    """Where the hidden states that an attention call reads were computed.

    Parameters
    ----------
    name : of the torch function that computed them.
    shape : of its result.
    sample : the first values, to be recognised by.
    """

    name: str
    shape: tuple[int, ...]
    sample: Tensor

    def is_at(self, name: str, out: Tensor) -> bool:
        """Tell whether a function that ran is the one that was meant."""
        if name != self.name or tuple(out.shape) != self.shape:
            return False
        now, then = out.detach().flatten()[: self.sample.numel()].double(), self.sample.double()
        allowed = 1e-4 if out.dtype in (torch.float32, torch.float64) else 2e-2
        return bool((now - then).abs().amax() <= allowed * then.abs().amax())


@dataclass(eq=False, repr=False)
class Rerun:
    """A handle to run the captured forward pass again.

    Parameters
    ----------
    module : the model.
    args, kwargs : what it was called with.
    target : what was explained in the capture, or None.
    labels : label name -> index.
    taps : (stream, index) of an attention call -> where its hidden states come from.
    random_state : of the processor before the captured pass, for models that draw random numbers.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any = None
    labels: Mapping[str, int] = field(default_factory=dict)
    taps: Mapping[tuple[str, int], Tap] = field(default_factory=dict)
    random_state: Tensor | None = None

    def __call__(self, **changes: Any) -> Any:
        """Run the forward pass again, with some inputs changed."""
        with self._drawing_again():
            return self.module(*self.args, **{**self.kwargs, **changes})

    @contextmanager
    def _drawing_again(self) -> Iterator[None]:
        """Let the model draw the random numbers that it drew in the capture, and none of the caller's."""
        own = torch.get_rng_state()
        if self.random_state is not None:
            torch.set_rng_state(self.random_state)
        try:
            yield
        finally:
            torch.set_rng_state(own)

    def start(self, stream: str) -> Tensor:
        """Return what a stream starts from: pixels (or other features), or the embeddings of its tokens.

        Raises
        ------
        NeedsError
            If the model was given nothing that can be differentiated by.
        """
        _, given = self._given(stream)
        if given.is_floating_point():
            return given.detach().clone()
        found: list[Tensor] = []

        def keep(embedded: Tensor) -> Tensor:
            found.append(embedded.detach().clone())
            return embedded

        with self._drawing_again(), torch.no_grad(), _Detour(ids=given, embedded=keep):
            self.module(*self.args, **self.kwargs)
        if not found:
            raise NeedsError(
                "the model never looked its token ids up in an embedding table: it cannot be differentiated "
                "by its tokens"
            )
        return found[0]

    def start_name(self, stream: str) -> str:
        """Return what a stream starts from: "embeddings" of its tokens, or the name of an input."""
        key, given = self._given(stream)
        ids = not given.is_floating_point() or key == "inputs_embeds"
        return "embeddings" if ids else f"input {key}" if isinstance(key, int) else key

    def score(
        self,
        stream: str,
        start: Tensor | None = None,
        *,
        target: Any = None,
        taps: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
        rule: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None,
        activation: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Run the model and return the score of the target, one value per item, with its graph.

        Parameters
        ----------
        stream : whose start is replaced.
        start : pixels or embeddings to run from; None = as captured.
        target : as for ``capture``; None = the capture's own.
        taps : index of an attention call of the stream -> function that receives, and may replace, the
            hidden states which that call reads.
        rule : asked for every torch function: ``rule(function, args, kwargs)`` returns the result to
            use, or NotImplemented.
        activation : asked for every module that is an element-wise activation: ``activation(input,
            output)`` returns the output to use; ``rule`` is not asked inside such a module.

        Raises
        ------
        NeedsError
            If there is no target, or a tap does not exist.
        CaptureError
            If the model does not compute again what it computed in the capture.
        """
        target = self.target if target is None else target
        if target is None:
            raise NeedsError("this needs a target: use capture(model, inputs, target=..., internals=True)")
        if torch.is_inference_mode_enabled():
            raise NeedsError("gradients cannot be computed under torch.inference_mode(): leave it")
        args, kwargs, detour = self._with_start(stream, start)
        detour.taps = [(self._tap(stream, index), function) for index, function in (taps or {}).items()]
        detour.rule = rule
        with self._drawing_again(), torch.enable_grad(), _activations(self.module, detour, activation):
            output = self.module(*args, **kwargs)
            score = target_score(output, target, labels=self.labels)
        if not isinstance(score, Tensor):
            raise InputError(
                "the target gives each layer a score of its own, and what runs the model again explains one "
                "number per item: give target=... to explain"
            )
        detour.check()
        if score.dim() == 0:
            score = score[None]
        return score

    def gradient(self, score: Tensor, wanted: Tensor) -> Tensor:
        """Return the gradient of a score, summed over items; ``.grad`` of parameters is not touched.

        Raises
        ------
        CaptureError
            If the score does not depend on ``wanted``.
        """
        found = None
        if score.requires_grad:
            (found,) = torch.autograd.grad(score.sum(), [wanted], allow_unused=True)
        if found is None:
            raise CaptureError("the score of the target does not depend on what it is to be explained by")
        return found

    def _given(self, stream: str) -> tuple[int | str, Tensor]:
        """Return the input of a stream: its position or keyword, and the tensor."""
        named: list[tuple[int | str, Tensor]] = [
            (key, value)
            for key, value in (*enumerate(self.args), *self.kwargs.items())
            if isinstance(value, Tensor)
        ]
        floats = [(key, value) for key, value in named if value.is_floating_point() and value.dim() >= 3]
        whole = [
            (key, value)
            for key, value in named
            if value.dtype in (torch.int64, torch.int32) and value.dim() == 2 and "mask" not in str(key)
        ]
        if stream == "decoder":
            whole = [one for one in whole if one[0] in _DECODER_WORDS] or whole
        else:
            whole = [one for one in whole if one[0] not in _DECODER_WORDS]
        ids = [one for one in whole if one[0] == "input_ids"] or whole
        choice = ids or floats if stream in ("text", "decoder") else floats or ids
        if not choice:
            raise NeedsError(f"the stream {stream!r} has no pixels and no token ids among the model's inputs")
        return choice[0]

    def _with_start(
        self, stream: str, start: Tensor | None
    ) -> tuple[tuple[Any, ...], dict[str, Any], _Detour]:
        if start is None:
            return self.args, self.kwargs, _Detour()
        key, given = self._given(stream)
        if not given.is_floating_point():
            return self.args, self.kwargs, _Detour(ids=given, embedded=lambda _: start)
        if start.shape != given.shape:
            raise InputError(f"the start must be {list(given.shape)}, got {list(start.shape)}")
        if isinstance(key, int):
            return (*self.args[:key], start, *self.args[key + 1 :]), self.kwargs, _Detour()
        return self.args, {**self.kwargs, key: start}, _Detour()

    def _tap(self, stream: str, index: int) -> Tap:
        if (stream, index) not in self.taps:
            raise NeedsError(
                f"where the hidden states of {stream} attention {index} come from is not known: use "
                "capture(model, inputs, internals=True); blocks that cannot be taken apart have no tap"
            )
        return self.taps[stream, index]


class _Detour(TorchFunctionMode):
    """What stands in the way of the forward pass during one run."""

    def __init__(
        self, *, ids: Tensor | None = None, embedded: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self._ids = ids
        self._embedded = embedded
        self.taps: list[tuple[Tap, Callable[[Tensor], Tensor]]] = []
        self.rule: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None
        self.inside_activation = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, or what is to be run instead."""
        args = _detached(args)
        kwargs = {} if kwargs is None else dict(_detached(kwargs))
        out = NotImplemented
        if self.rule is not None and not self.inside_activation:
            out = self.rule(func, args, kwargs)
        if out is NotImplemented:
            out = func(*args, **kwargs)
        if self._embedded is not None and bare_name(func) == "embedding" and self._is_lookup(args, kwargs):
            out, self._embedded = self._embedded(out), None
        return self._tapped(bare_name(func), out)

    def _is_lookup(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        ids = args[0] if args else kwargs.get("input")
        return isinstance(ids, Tensor) and self._ids is not None and torch.equal(ids, self._ids)

    def _tapped(self, name: str, out: Any) -> Any:
        if not self.taps or not isinstance(out, Tensor):
            return out
        for position, (tap, function) in enumerate(self.taps):
            if tap.is_at(name, out):
                del self.taps[position]
                return function(out)
        return out

    def check(self) -> None:
        """Refuse a run in which a tap was never reached or the start was never used."""
        if self.taps:
            raise CaptureError(
                "the model did not compute again what it computed in the capture (is it still in the same "
                "mode, with the same weights, and without dropout?)"
            )
        if self._embedded is not None:
            raise CaptureError("the model never looked up the embeddings that were to be replaced")


def _detached(values: Any) -> Any:
    """Put parameters into arguments as detached tensors, also inside lists."""
    if isinstance(values, nn.Parameter):
        return values.detach()
    if isinstance(values, dict):
        return {key: _detached(value) for key, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(_detached(value) for value in values)
    return values


@contextmanager
def _activations(
    module: nn.Module, detour: _Detour, activation: Callable[[Tensor, Tensor], Tensor] | None
) -> Iterator[None]:
    """Enter the detour; let ``activation`` answer for modules that are element-wise activations."""
    handles: list[Any] = []
    thread = threading.get_ident()

    def before(this: nn.Module, args: Any) -> None:  # noqa: ARG001
        if threading.get_ident() == thread:
            detour.inside_activation += 1

    def after(this: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001
        if threading.get_ident() != thread:
            return None
        detour.inside_activation -= 1
        if activation is None or detour.inside_activation or not isinstance(output, Tensor):
            return None
        return activation(args[0], output)

    try:
        if activation is not None:
            for one in _elementwise_modules(module):
                handles.append(one.register_forward_pre_hook(before))
                handles.append(one.register_forward_hook(after, always_call=True))
        with detour:
            yield
    finally:
        while handles:
            handles.pop().remove()


def _elementwise_modules(module: nn.Module) -> list[nn.Module]:
    """Return the modules that compute each number from one number, found by trying them out."""
    found = []
    probe = torch.linspace(-2.0, 2.0, 11, dtype=torch.float64)
    for one in module.modules():
        bare = not any(True for _ in one.children()) and not any(
            True for _ in (*one.parameters(), *one.buffers())
        )
        if bare and not isinstance(one, nn.Dropout | nn.Identity) and _is_elementwise(one, probe):
            found.append(one)
    return found


def _is_elementwise(module: nn.Module, probe: Tensor) -> bool:
    """Tell whether a module gives each number of a row the same value as the number alone."""
    try:
        with torch.no_grad():
            together = module.forward(probe[None].clone())
            if not isinstance(together, Tensor) or together.shape != (1, probe.numel()):
                return False
            alone = [module.forward(number.reshape(1, 1).clone()) for number in probe]
    except Exception:
        return False
    return all(
        isinstance(one, Tensor) and one.shape == (1, 1) and torch.allclose(one[0, 0], together[0, i])
        for i, one in enumerate(alone)
    ) and not torch.equal(together[0], probe)
