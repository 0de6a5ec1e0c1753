"""Hear and see what the features of an audio CNN respond to.

fastdeconv runs a trained convolutional network forward on a clip, projects
every feature of every layer back to the spectrogram with a deconvnet (Zeiler
and Fergus, arXiv 1311.2901) and turns the result into sound (Choi, Fazekas and
Sandler, arXiv 1607.02444).

Public names load on first use, so that ``import fastdeconv`` costs no more than
importing numpy.
"""

from __future__ import annotations

import importlib

from .version import __version__

# Type checkers take it for the constant of typing, a module that would take longer to import than
# everything else here.
TYPE_CHECKING = False

# Public name -> the module that defines it; `ops` is a module itself.
_EXPORTS = {
    "Network": ".network.network",
    "from_keras": ".network.importers.keras",
    "from_onnx": ".network.importers.onnx",
    "from_torch": ".network.importers.torch",
    "pretrained": ".network.pretrained",
    "list_pretrained": ".network.pretrained",
    "deconvolve": ".deconvnet.projection",
    "Trace": ".deconvnet.trace",
    "Frontend": ".audio.frontend",
    "Clip": ".audio.clip",
    "load_clip": ".audio.clip",
    "auralise": ".audio.auralise",
    "attribute_study": ".studies",
    "AttributeStudy": ".studies",
    "describe": ".analysis.descriptors",
    "randomised": ".analysis.controls",
    "feature_evolution": ".studies",
    "Evolution": ".studies",
    "chord_stimuli": ".analysis.stimuli",
    "read_stimuli": ".analysis.stimuli",
    "Stimulus": ".analysis.stimuli",
    "decision": ".studies",
    "Decision": ".studies",
    "correspondence": ".studies",
    "Correspondence": ".studies",
    "invariance": ".studies",
    "Invariance": ".studies",
    "top_clips": ".studies",
    "TopClips": ".studies",
    "occlude": ".belief.occlusion",
    "Occlusion": ".belief.occlusion",
    "explain": ".explanation",
    "Explanation": ".explanation",
    "SongExplanation": ".explaining.song_explanation",
    "SavedExplanation": ".explaining.saved",
    "overview": ".report.overview",
    "write_atlas": ".report.atlas",
    "survey": ".survey.surveying",
    "Survey": ".survey.surveying",
    "ops": ".kernels.ops",
    "cite": ".report.citations",
    "config": ".kernels.dispatch",
    "available_backends": ".kernels.dispatch",
    "available_isas": ".kernels.dispatch",
    "show_config": ".kernels.dispatch",
    "FastdeconvError": ".errors",
    "ParameterError": ".errors",
    "ArchiveError": ".errors",
    "AudioError": ".errors",
    "BackendError": ".errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    from typing import Any

    from .analysis.controls import randomised as randomised
    from .analysis.descriptors import describe as describe
    from .analysis.stimuli import Stimulus as Stimulus
    from .analysis.stimuli import chord_stimuli as chord_stimuli
    from .analysis.stimuli import read_stimuli as read_stimuli
    from .audio.auralise import auralise as auralise
    from .audio.clip import Clip as Clip
    from .audio.clip import load_clip as load_clip
    from .audio.frontend import Frontend as Frontend
    from .belief.occlusion import Occlusion as Occlusion
    from .belief.occlusion import occlude as occlude
    from .deconvnet.projection import deconvolve as deconvolve
    from .deconvnet.trace import Trace as Trace
    from .errors import ArchiveError as ArchiveError
    from .errors import AudioError as AudioError
    from .errors import BackendError as BackendError
    from .errors import FastdeconvError as FastdeconvError
    from .errors import ParameterError as ParameterError
    from .explaining.saved import SavedExplanation as SavedExplanation
    from .explaining.song_explanation import SongExplanation as SongExplanation
    from .explanation import Explanation as Explanation
    from .explanation import explain as explain
    from .kernels import ops as ops
    from .kernels.dispatch import available_backends as available_backends
    from .kernels.dispatch import available_isas as available_isas
    from .kernels.dispatch import config as config
    from .kernels.dispatch import show_config as show_config
    from .network.importers.keras import from_keras as from_keras
    from .network.importers.onnx import from_onnx as from_onnx
    from .network.importers.torch import from_torch as from_torch
    from .network.network import Network as Network
    from .network.pretrained import list_pretrained as list_pretrained
    from .network.pretrained import pretrained as pretrained
    from .report.atlas import write_atlas as write_atlas
    from .report.citations import cite as cite
    from .report.overview import overview as overview
    from .studies import AttributeStudy as AttributeStudy
    from .studies import Correspondence as Correspondence
    from .studies import Decision as Decision
    from .studies import Evolution as Evolution
    from .studies import Invariance as Invariance
    from .studies import TopClips as TopClips
    from .studies import attribute_study as attribute_study
    from .studies import correspondence as correspondence
    from .studies import decision as decision
    from .studies import feature_evolution as feature_evolution
    from .studies import invariance as invariance
    from .studies import top_clips as top_clips
    from .survey.surveying import Survey as Survey
    from .survey.surveying import survey as survey


def __getattr__(name: str) -> Any:
    try:
        where = _EXPORTS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    module = importlib.import_module(where, __name__)
    value = module if name == "ops" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What a notebook offers on tab: no names that are only used in here."""
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *__all__})
