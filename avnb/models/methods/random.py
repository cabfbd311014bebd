"""`random`: no pre-training."""

from avnb.config import Pretrain
from avnb.models.methods.base import Log, Method


class Random(Method):
    """Encoders as they are initialised: what every other method is compared with."""

    title = "Random"
    colour = "#8a8f98"
    is_trained = False

    @staticmethod
    def is_finished(config: Pretrain, log: Log) -> bool:
        """Always: there is nothing to train."""
        return True
