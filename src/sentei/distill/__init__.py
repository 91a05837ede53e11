"""Learning from a teacher: its logits, hidden states and attention scores, in any training loop."""

from sentei.distill.cache import TeacherCache
from sentei.distill.distiller import Distiller
from sentei.distill.layers import Match, match

__all__ = ["Distiller", "Match", "TeacherCache", "match"]
