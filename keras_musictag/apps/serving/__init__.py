"""A web page that tags audio dropped onto it or recorded (extra `demo`).

`tagging_service.py` tags uploaded files with the models asked for. `server.py` is the page (Gradio) and the server;
`page.js` draws the answer and follows the player.
"""

from .server import ServeError as ServeError
from .server import serving as serving
from .tagging_service import Limits as Limits
from .tagging_service import TaggingService as TaggingService

__all__ = ["Limits", "ServeError", "TaggingService", "serving"]
