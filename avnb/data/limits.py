"""What a video file may ask for. A file of a few kilobytes can declare hours, or huge frames.

No data set of the field comes near the defaults. Others are set for all processes by the
environment: `AVNB_LIMITS='{"seconds": 20000}'`.
"""

import functools
import os
from dataclasses import dataclass

from avnb.config import Config, parse_values, within

VARIABLE = "AVNB_LIMITS"
# Containers that hold media. Others, such as play lists, make FFmpeg open further files.
CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,rm,m4v,nut,mxf,dv,h264"


@dataclass(frozen=True, kw_only=True)
class Limits(Config):
    """The most that is accepted of one file."""

    seconds: float = within(1, 10**7, 7200.0)
    frame_pixels: int = within(1, 2**31 - 1, 4096 * 2304)
    stretch: float = within(1, 10**9, 100.0)  # its length, by what its frames last at their rate
    reading_gb: float = within(0.01, 10**4, 8.0)  # frames and audio asked for at once


@functools.cache
def limits() -> Limits:
    """Those of the environment.

    Raises:
        TypeError, ValueError: for a name or a value that is none.
    """
    return Limits.from_flat(**parse_values(os.environ.get(VARIABLE) or "{}"))
