"""One capture at work: sees the torch calls of a forward pass and keeps those that are attention."""

from __future__ import annotations

import inspect
import threading
import types as pytypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from attnlib.hooks.calls import Call
from attnlib.hooks.eager import PRODUCTS, find_product, read_product
from attnlib.hooks.following import Following
from attnlib.hooks.fused import FusedArguments, read_fused
from attnlib.hooks.gradients import GradientKeeper
from attnlib.hooks.limits import Limits
from attnlib.hooks.mixing import MIXING, Mixing
from attnlib.hooks.origin_rules import follow
from attnlib.hooks.origins import Origin, Origins
from attnlib.hooks.packed import packed_patches
from attnlib.hooks.probabilities import SOFTMAXES, Probabilities
from attnlib.hooks.refusals import KERNELS, Readable, refuse_dropout, refuse_kernel
from attnlib.hooks.replaced import note_replaced
from attnlib.hooks.softmax_by_hand import STEPS, WrittenSoftmax
from attnlib.hooks.torch_names import MOVES
from attnlib.hooks.trail import Frame, Trail
from attnlib.hooks.verify import check_numbers, unlike_softmax, verify

__all__ = ["Session"]

_own = threading.local()


class _OwnWork:
    """Hide what attnlib computes itself from other captures in this thread."""

    def __enter__(self) -> None:
        _own.depth = getattr(_own, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        _own.depth -= 1


def _unguarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a twin of a torch function that does not hand itself over to the function mode again."""
    inside = {**function.__globals__, "has_torch_function": lambda _: False}
    twin = pytypes.FunctionType(
        function.__code__, inside, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


_BESIDE = (
    "mask",
    "position",
    "type_ids",
    "segment",
    "label",
    "cache",
    "grid_thw",
    "input_points",
    "input_boxes",
)  # inputs that are no tokens
_MULTI_HEAD = functional.multi_head_attention_forward
_multi_head_twin = _unguarded(_MULTI_HEAD)


class Session(TorchFunctionMode):
    """Intercept the attention calls of one model in one thread.

    Parameters
    ----------
    model : the module to watch.
    gradients : keep the outputs of the calls in the graph.
    limits : what of each call is kept.
    on_call : called with the calls of a forward pass so far, whenever there is one more.
    on_forward : called with the calls of each outermost forward pass, when it has ended.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        gradients: bool,
        limits: Limits,
        on_call: Callable[[list[Call]], None],
        on_forward: Callable[[list[Call], Origins, Any], None],
    ) -> None:
        super().__init__()
        self.model = model
        self.trail = Trail(model, self._begin, self._end, self._abort)
        self.keeper = GradientKeeper() if gradients else None
        self.origins = Origins()
        self.probabilities = Probabilities()
        self.mixing = Mixing()
        self.following = Following(model)
        self.written = WrittenSoftmax()
        self.calls: list[Call] = []
        self.channelwise: list[str] = []
        self.approximate: list[str] = []
        self._results: Any = WeakTensorKeyDictionary()
        self.forward = -1
        self.seen: set[str] = set()
        self._limits = limits
        self._on_call = on_call
        self._on_forward = on_forward
        self._entered = False
        self._between = False

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See each torch call; keep those that are attention."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and getattr(getattr(func, "__self__", None), "__name__", "") not in MOVES:
            return func(*args, **kwargs)  # shape, dtype ... of a tensor: most of all calls
        name = name.partition(".")[0]  # an operator's overload stands behind a dot
        if getattr(_own, "depth", 0) or not self.trail.here:
            output = func(*args, **kwargs)
            if self._between and not getattr(_own, "depth", 0) and self.trail.own_thread:
                with _OwnWork():
                    self._follow(name, func, args, kwargs, output)
            return output
        if func is _MULTI_HEAD:
            if not self.calls and isinstance(query := args[0] if args else kwargs.get("query"), Tensor):
                self.origins.positions_first(query)
            with self:
                return _multi_head_twin(*args, **kwargs)
        output = func(*args, **kwargs)
        with _OwnWork(), Readable(self.trail.frames[-1].name):
            return self._look(name, func, args, kwargs, output)

    def _look(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> Any:
        before = len(self.calls)
        if name == "__setitem__" and self.calls:
            with suppress(RuntimeError, TypeError, ValueError, IndexError):
                note_replaced(self.calls, args, self.following, self.origins, self.trail.frames[-1])
        plain, output = output, self._attention(name, func, args, kwargs, output)
        if len(self.calls) > before:
            call = self.calls[-1]
            call.follows = self.following.after(*_operands(name, args, kwargs))
            call.number = self.following.call(output)
            self._on_call(self.calls)
        else:
            self.following.pass_on(name, args, kwargs, plain)
        return output

    def _attention(
        self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if name.startswith(KERNELS):
            refuse_kernel(self.trail.frames[-1].name, name)
        if name == functional.scaled_dot_product_attention.__name__:
            output = self._fused(FusedArguments(*args, **kwargs), output)
        elif name in SOFTMAXES:
            self._softmax(args, kwargs, output)
            return output
        elif name in PRODUCTS and isinstance(output, Tensor):
            product = find_product(name, [*args, *kwargs.values()], self.probabilities)
            if product is not None:
                output = self._product(product, output)
                self._results[output] = self.trail.frames[-1]
            else:
                self.mixing.look(name, args, kwargs, self.origins, self.trail.frames[-1].name)
        elif name in MIXING:
            self.mixing.look(name, args, kwargs, self.origins, self.trail.frames[-1].name)
        elif name in STEPS:
            written = self.written.look(name, args, kwargs, output)
            if written is not None:
                self._softmaxed(*written, output)
        if self.probabilities.any:
            with torch.no_grad():
                self.probabilities.follow(name, func, args, kwargs, output)
        self._follow(name, func, args, kwargs, output)
        return output

    def _follow(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        """Pass origins on; one that cannot be followed is not known."""
        with suppress(RuntimeError, TypeError, ValueError, IndexError, KeyError):
            follow(self.origins, name, func, args, kwargs, output)

    def _fused(self, given: FusedArguments, output: Tensor) -> Tensor:
        frame = self.trail.frames[-1]
        states = _states_a_token(frame, given.key, self.origins.get(given.key))
        if states is not None:
            self.channelwise.append(frame.name)
            origin = self.origins.get(states)
            if origin is not None and origin.ids.dim() == 3:
                self.origins.put(output, origin.ids.unsqueeze(2), origin.sequence)
            return output
        call, arrange = read_fused(given, output, frame, self.trail.frames[0], self.origins, self.forward)
        return self._keep(call, output, arrange)

    def _softmax(self, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        scores = args[0] if args else kwargs.get("input")
        axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        if not isinstance(output, Tensor) or not isinstance(axis, int) or not isinstance(scores, Tensor):
            return
        self._softmaxed(scores, axis % output.dim(), output)

    def _softmaxed(self, scores: Tensor, axis: int, output: Tensor) -> None:
        self.probabilities.begin(output, axis, self.trail.frames[-1].name, scores)
        origin = self.origins.get(scores)
        if origin is not None:
            self.origins.same(output, origin)

    def _product(self, product: Any, output: Tensor) -> Tensor:
        frame = self.trail.frames[-1]
        chained = self._results.get(product.values) is frame
        if chained or self.probabilities.get(product.values) is not None:
            self.approximate.append(frame.name)  # a product of several softmaxes stands for the weights
            return output
        found = read_product(product, frame, self.trail.frames[0], self.origins, self.forward)
        self.probabilities.open.pop(product.held.serial, None)
        if product.held.dropped:
            refuse_dropout(frame.name, "")
        if found is None:
            if not isinstance(product.values, nn.Parameter):
                self.channelwise.append(frame.name)
            return output
        call, arrange = found
        return self._keep(call, output, arrange)

    def _keep(self, call: Call, output: Tensor, arrange: Callable[[Tensor], Tensor]) -> Tensor:
        """Verify a call against its real output and keep what was asked for."""
        check_numbers(call)
        arranged = arrange(output.detach())
        call.remember(*verify(call.source, arranged, call.name))
        note = unlike_softmax(call)
        if note is not None:
            call.notes = (*call.notes, note)
        self.seen.add(call.name)
        heads, rows = self._limits.narrow(call)
        call.remember_kept(arranged, heads, rows)
        if self.keeper is not None:
            output = self.keeper.leaf(output, call.name)
            batch, kept_heads, kept_rows, _ = call.source.shape
            call.gradient_bytes = batch * kept_heads * kept_rows * arranged.shape[-1] * output.element_size()
            output = self.keeper.watch(call.source, output, lambda g: arrange(g)[:, heads][:, :, rows])
        self.calls.append(call)
        return output

    def _begin(self, frame: Frame) -> None:
        self.forward += 1
        names = _argument_names(frame.module)
        batch_first = _batch_first(frame.module)
        given = [*_flat([*zip(names, frame.args, strict=False), *frame.kwargs.items()])]
        frame.named = {name: value for name, value in given if isinstance(value, Tensor)}
        with _OwnWork(), suppress(RuntimeError):
            self.following.begin(frame.named.values())
            for name, value in given:
                beside = any(word in name for word in _BESIDE)
                if not isinstance(value, Tensor) or value.dim() < 2 or beside:
                    continue
                if self.origins.get(value) is not None:  # made by a part of the model that ran before
                    self.origins.batches.add(value.shape[0])
                    continue
                packed = packed_patches(self.model, given, name, value)
                if packed is not None:
                    self.origins.put(value, *packed)
                else:
                    self.origins.seed(name, value, batch_first=batch_first)

    def _end(self, frame: Frame, output: Any) -> None:
        calls, self.calls = self.calls, []
        self.written = WrittenSoftmax()
        with _OwnWork(), Readable(frame.name):
            self._on_forward(calls, self.origins, output)
        # a part of the model that runs on its own, such as an image encoder, feeds the rest
        carried = list(_tensors_in(output)) if frame.name else []
        self._between = bool(carried)
        self.origins.clear(keep=carried)

    def _abort(self) -> None:
        """Forget a forward pass that was left by an exception."""
        for call in self.calls:
            if self.keeper is not None:
                self.keeper.forget(call.source)
        self.calls = []
        self.origins.clear()

    def start(self) -> None:
        """Register the hooks and enter the function mode."""
        self.trail.enter()
        try:
            self.__enter__()
            self._entered = True
        except BaseException:
            self.trail.leave()
            raise

    def stop(self) -> None:
        """Give the model back."""
        try:
            if self._entered:
                self.__exit__(None, None, None)
                self._entered = False
        finally:
            self.trail.leave()
            self.origins.clear()
            self.written = WrittenSoftmax()


def _tensors_in(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for one in output.values():
            yield from _tensors_in(one)
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors_in(one)


def _operands(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return what an attention call multiplies: queries, keys and values, or weights and values."""
    if name != functional.scaled_dot_product_attention.__name__:
        return [*args, *kwargs.values()]
    return [*args[:3], *(kwargs[word] for word in ("query", "key", "value") if word in kwargs)]


def _flat(given: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield names and values of the arguments, those inside a dictionary of inputs too."""
    for name, value in given:
        if isinstance(value, Mapping) and not name.endswith("outputs"):
            yield from ((str(inner), one) for inner, one in value.items())
        else:
            yield name, value


def _states_a_token(frame: Frame, key: Tensor, origin: Origin | None) -> Tensor | None:
    """Return the states [batch, token, channel] whose tokens each have keys of their own: earlier states."""
    if key.dim() != 4 or min(key.shape[1:3]) < 2:
        return None
    if origin is not None and origin.ids.dim() == 4 and origin.ids.shape[1] == 1 < origin.ids.shape[2]:
        return None  # as many heads as tokens
    size = (key.shape[0], key.shape[1], key.shape[3])
    given = [one for one in (*frame.args, *frame.kwargs.values()) if isinstance(one, Tensor)]
    return next((one for one in given if one.shape == size), None)


def _argument_names(module: nn.Module) -> list[str]:
    forward = inspect.unwrap(module.forward)
    code = getattr(forward, "__code__", None)
    if code is None:
        return [f"input {i}" for i in range(16)]
    names = code.co_varnames[: code.co_argcount]
    bound = names[:1] == ("self",) or hasattr(forward, "__self__")
    return [*names[bound:], *(f"input {i}" for i in range(16))]


def _batch_first(module: nn.Module) -> bool:
    """Tell which axis counts items, by torch's own modules; any other model may turn its inputs first."""
    if not type(module).__module__.startswith("torch."):
        return True
    for inner in module.modules():
        flag = getattr(inner, "batch_first", None)
        if isinstance(flag, bool):
            return flag
    return True
