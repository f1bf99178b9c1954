"""The functions of a chain: the built-in ones, the users' own, and how a row goes through them."""

from PIL.Image import Image

from pipelinejob.functions.chain import Chain, Going, Outcome
from pipelinejob.functions.draws import Draws
from pipelinejob.functions.loading import load
from pipelinejob.functions.params import Param
from pipelinejob.functions.predict import BUILTINS  # and with it those of builtin.py
from pipelinejob.functions.registry import Function, Row
from pipelinejob.functions.resolve import check_files, resolve_functions
from pipelinejob.functions.window import SCALED_PSNR_DB

__all__ = [
    "BUILTINS",
    "SCALED_PSNR_DB",
    "Chain",
    "Draws",
    "Function",
    "Going",
    "Image",
    "Outcome",
    "Param",
    "Row",
    "check_files",
    "load",
    "resolve_functions",
]
