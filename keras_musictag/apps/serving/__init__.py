"""A page in the browser that tags what is dropped onto it or recorded (extra `demo`).

`desk.py` answers: a sound file and names of models in, what the page shows out. `page.py` is the page (Gradio) and the
server; `page.js` draws the answer and follows the player.
"""

from .desk import Desk as Desk
from .desk import Limits as Limits
from .server import ServeError as ServeError
from .server import serving as serving

__all__ = ["Desk", "Limits", "ServeError", "serving"]
