"""The functions of a chain: the built-in ones, the users' own, and how a row goes through them."""

from pipelinejob.functions.builtin import BUILTINS
from pipelinejob.functions.chain import Chain, Outcome
from pipelinejob.functions.draws import Draws
from pipelinejob.functions.loading import load
from pipelinejob.functions.params import Param
from pipelinejob.functions.registry import Function
from pipelinejob.functions.resolve import resolve_functions
from pipelinejob.functions.window import SCALED_PSNR_DB

__all__ = ["BUILTINS", "SCALED_PSNR_DB", "Chain", "Draws", "Function", "Outcome", "Param", "load", "resolve_functions"]
