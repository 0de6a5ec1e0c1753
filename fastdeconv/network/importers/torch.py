"""Networks from PyTorch modules, which PyTorch's own exporters convert to ONNX."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ParameterError, shown
from ...optional import optional_module
from ..network import Network
from .advising import Call
from .assembling import import_model
from .ends import NotReachedError, Wishes
from .onnx import sizes, wanted_name
from .reading import named_in_errors, onnx_module, read_model
from .torch_pools import as_products

if TYPE_CHECKING:
    from ...audio.frontend import Frontend

__all__ = ["from_torch"]

Array = NDArray[Any]


def from_torch(
    module: Any,
    input_shape: Sequence[int] | Any,
    *,
    frontend: Frontend | dict[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    inputs: str | None = None,
    outputs: str | None = None,
    name: str | None = None,
) -> Network:
    """Import a PyTorch module as it computes after ``module.eval()``.

    The module is exported to ONNX in memory; it is not changed. Reused and in-place
    activations, functional calls and weight norm are allowed. Every layer is compared with
    the exported model, and also with the output of the module of the same name if there is one.
    ``network.receipt`` says how well they agree.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
    input_shape : sequence of int, or torch.Tensor
        The shape of an input, with or without the batch, or an example of an input with a batch
        of 1. An example is needed if the module accepts both (1, N) and (1, 1, N) and treats them
        differently.
    frontend : Frontend or dict, optional
        How a clip becomes an input. If the model takes samples and computes a spectrogram itself,
        give only their rate, ``{"sr": 16000}``: the spectrogram becomes the front end, and the
        network begins after it.
    classes : sequence of str, optional
        Names of the outputs.
    inputs : str, optional
        A module such as ``"melspectrogram"``: the network begins after it. Or a
        value of the exported graph, as error messages name it.
    outputs : str, optional
        The last module, such as ``"features.5"``. What follows it need not be importable. Of a
        module with several outputs, the key or field name of one of them will do.
    name : str, optional
        By default the name of the module's class.

    Returns
    -------
    Network
        Layers are named after modules, ``features.3``; the second call of a module is ``relu:1``;
        operators between modules are named after the module around them and their type,
        ``block.add``. `from_onnx` describes the axes of the input.

    Raises
    ------
    ParameterError
        If the module cannot take the input or cannot be exported, or there is no layer for an
        operator. The message names it and its module, and says what can be imported below it.
    ArchiveError
        If the comparison fails.

    See Also
    --------
    from_onnx : import from an ONNX file, with more options

    Examples
    --------
    >>> import fastdeconv as fd
    >>> from torch import nn
    >>> module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    >>> fd.from_torch(module, (1, 96, 128))
    <Network 'Sequential': 3 layers, input 1 x 96 x ?, output 8 x 47 x ?>
    """
    torch = _torch()
    onnx_module()
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if not isinstance(module, torch.nn.Module):
        raise ParameterError(
            f"module must be a torch.nn.Module, found {shown(module)}; load a checkpoint into "
            "its module first"
        )
    module = _unwrapped(torch, module)
    title = type(module).__name__
    _require_values(torch, module)
    module = _in_float32(torch, module)
    modules = {path for path, _ in module.named_modules() if path}
    with named_in_errors(title), _evaluating(module), torch.no_grad():
        example = _example(torch, module, input_shape)
        wishes = Wishes(
            Call("from_torch(..., ", has_command=False), None, inputs, outputs, frontend, classes,
            wanted_name(title) if name is None else name, modules,
            # The outputs of modules are known only for an input of the whole module.
            None if inputs else lambda x: _outputs_of(torch, module, example, x),
            output_names=_output_names(torch, module(example)),
        )
        return _imported(torch, module, example, title, wishes)


def _imported(torch: Any, module: Any, example: Any, title: str, wishes: Wishes) -> Network:
    """Export with the newer exporter or, if that fails, with the older one, and import.

    They split operators in different ways, so one may give layers where the other does not.
    """
    failed: list[str] = []
    refused: NotReachedError | None = None
    for export in (_exported, _exported_before):
        try:
            with _quiet(), as_products(torch):
                data = export(torch, module, example)
        except Exception as error:  # the exporter runs the module's own code
            failed.append(_cause(error))
            continue
        try:
            return import_model(read_model(data)[0], title, wishes)
        except NotReachedError as error:
            refused = refused or error
        except ParameterError:
            if refused is None:
                raise
    if refused is not None:
        raise refused
    raise ParameterError(
        f"PyTorch cannot export the module to ONNX: {failed[0]}; nor with its older exporter: "
        f"{failed[1]}"
    )


def _cause(error: BaseException) -> str:
    """What PyTorch says went wrong: its first error, of which the others are consequences."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # exporters write in colours
    return " ".join(text.split())[:200] or type(error).__name__


def _torch() -> Any:
    return optional_module("torch", "a module of PyTorch", "torch")


def _unwrapped(torch: Any, module: Any) -> Any:
    """The module inside wrappers that compile it or distribute it over devices."""
    around = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(module, around):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), torch.nn.Module):
            module = module._orig_mod
        else:
            return module


def _require_values(torch: Any, module: Any) -> None:
    """Refuse modules whose weights are integers, or have a shape but no values."""
    for key, value in module.state_dict().items():
        if "_packed_params" in key or (isinstance(value, torch.Tensor) and value.is_quantized):
            raise ParameterError(
                f"the weights of the module are quantised ({shown(key)}); import the module in "
                "floating point from which it was made"
            )
        if isinstance(value, torch.Tensor) and value.is_meta:
            raise ParameterError(
                f"the weights of the module have no values ({shown(key)} is on PyTorch's device "
                "'meta'); load its state_dict first, with assign=True"
            )


def _in_float32(torch: Any, module: Any) -> Any:
    """The module; of one in half precision, a copy in float32, because halves are too coarse."""
    coarse = (torch.float16, torch.bfloat16)
    # A module may have things of its own in its state_dict.
    halves = any(getattr(value, "dtype", None) in coarse for value in module.state_dict().values())
    return copy.deepcopy(module).float() if halves else module


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put the module into evaluation mode, and restore its mode afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    # An exported program has no modes, and its eval() raises this error.
    with contextlib.suppress(NotImplementedError):
        module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag


def _example(torch: Any, module: Any, given: Any) -> Any:
    """An input of the module: the given tensor, or zeros of the first shape that it accepts."""
    likely = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(0))
    if isinstance(given, torch.Tensor):
        given = given.detach().to(likely.device, likely.dtype)
        try:
            module(given)
        except Exception as error:  # of the module's own code
            raise _cannot_take([tuple(given.shape)], error) from None
        return given
    shape = tuple(n for n in sizes(given) if n is not None)
    shapes = [shape] if len(shape) > 3 else [(1, *shape), shape]
    # A network of one row is (C, 1, W) here, and (C, W) for a 1-D convolution.
    if len(shape) == 3 and shape[1] == 1:
        shapes.append((1, shape[0], shape[2]))
    first: Exception | None = None
    for shape in shapes:
        try:
            example = torch.zeros(shape, dtype=likely.dtype, device=likely.device)
            module(example)
        except Exception as error:  # of the module's own code, or out of memory
            first = first or error
            continue
        if len(shape) == 3 and shape[:2] == (1, 1):
            _refuse_two_meanings(torch, module, example)
        return example
    assert first is not None
    raise _cannot_take(shapes, first) from None


def _refuse_two_meanings(torch: Any, module: Any, example: Any) -> None:
    """Refuse (1, N) if the module accepts (1, 1, N) too and treats it differently."""
    noise = torch.tensor(
        np.random.default_rng(0).normal(0, 0.1, example.shape), dtype=example.dtype
    ).to(example.device)
    try:
        one, other = module(noise), module(noise[0])
    except Exception:  # of the module's own code: it does not take both
        return
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return
    if one.numel() != other.numel() or not torch.allclose(
        one.reshape(-1), other.reshape(-1), rtol=1e-3, atol=1e-5
    ):
        size = example.shape[-1]
        raise ParameterError(
            f"the module accepts (1, {size}) and (1, 1, {size}), and treats them differently; "
            f"give an input instead of its shape: torch.zeros(1, {size}), if the first axis is the "
            f"batch, or torch.zeros(1, 1, {size})"
        )


def _cannot_take(shapes: Sequence[tuple[int, ...]], error: Exception) -> ParameterError:
    why = " ".join(str(error).split()) or type(error).__name__
    tried = " or ".join(map(str, shapes))
    text = f"the module cannot take an input of shape {tried}: {shown(why)}"
    # It needs other arguments, or takes a key of something that it thinks is a dict.
    if isinstance(error, (TypeError, IndexError)):
        text += (
            ". Its forward must take one tensor and nothing else: if it takes a dict or several "
            "arguments, put it into a module whose forward takes the tensor and calls it"
        )
    return ParameterError(text)


def _output_names(torch: Any, result: Any) -> list[str]:
    """The names that a module itself gives its outputs; none if it returns no dict of tensors."""
    named = result._asdict() if hasattr(result, "_asdict") else result
    if not isinstance(named, Mapping):
        return []
    given = {key: value for key, value in named.items() if value is not None}
    tensors = all(isinstance(value, torch.Tensor) for value in given.values())
    return [str(key) for key in given] if tensors else []


_EXPORTING = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters from printing warnings, and the graph where they fail."""
    # What is set here is the process's, not the thread's: two at a time would restore each other's.
    # Nor can PyTorch export on two threads.
    with _EXPORTING:
        disabled = logging.root.manager.disable
        logging.disable(max(disabled, logging.WARNING))
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(disabled)


def _exported(torch: Any, module: Any, example: Any) -> bytes:
    """The module as ONNX, without optimisation, so that every module stays visible."""
    program = torch.onnx.export(module, (example,), dynamo=True, optimize=False, verbose=False)
    return bytes(program.model_proto.SerializeToString())


def _exported_before(torch: Any, module: Any, example: Any) -> bytes:
    """The module as ONNX by the older exporter."""
    file = io.BytesIO()
    torch.onnx.export(
        module, (example,), file, dynamo=False, verbose=False,
        # Otherwise batch norms are folded, and convolutions lose their names.
        training=torch.onnx.TrainingMode.PRESERVE,
        # An operator that ONNX lacks is kept as PyTorch's own; the import then names it.
        operator_export_type=torch.onnx.OperatorExportTypes.ONNX_FALLTHROUGH,
    )
    return file.getvalue()


def _outputs_of(
    torch: Any, module: Any, example: Any, x: Array
) -> Mapping[str, list[Array]]:
    """The outputs of every module for an input, one for each call; "" is the whole module."""
    told: dict[str, list[Array]] = {}

    def keep(path: str) -> Any:
        def hook(part: Any, given: Any, result: Any) -> None:
            # A copy, because the next activation may work in place.
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                array = result.detach().to("cpu", torch.float32).numpy()
                told.setdefault(path, []).append(np.array(array))

        return hook

    scripted = torch.jit.ScriptModule
    handles = [
        part.register_forward_hook(keep(path)) for path, part in module.named_modules()
        if path and not isinstance(part, scripted)
    ]
    try:
        given = torch.from_numpy(np.array(x)).to(example.device, example.dtype)
        keep("")(module, given, module(given))
    finally:
        for handle in handles:
            handle.remove()
    return told
