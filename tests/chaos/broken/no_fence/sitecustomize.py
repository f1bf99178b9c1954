"""A build that is wrong on purpose: a round that is over is not closed in the output folder, so its processes can still publish."""

from __future__ import annotations

from pipelinejob.commit import OutputFolder

OutputFolder.close_rounds = lambda self: None
