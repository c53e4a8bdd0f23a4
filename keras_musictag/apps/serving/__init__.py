"""A web page that tags uploaded and recorded audio (extra `demo`).

`tagging_service.py` tags files with several models; `live_tagging.py` tags live recordings. `server.py` is the page and
the server (Gradio); `page.js` draws the results and follows the player.
"""

from .server import ServeError as ServeError
from .server import serving as serving
from .tagging_service import Limits as Limits
from .tagging_service import TaggingService as TaggingService

__all__ = ["Limits", "ServeError", "TaggingService", "serving"]
