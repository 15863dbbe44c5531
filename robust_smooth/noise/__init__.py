"Smoothing distributions: their settings, laws and draws."
from ..core import _face

__getattr__, __dir__ = _face(__name__)
