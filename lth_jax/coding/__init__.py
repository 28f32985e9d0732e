"""Compression of tickets: codes, theoretical bounds, and the ticket file."""

from lth_jax.coding.errors import TicketError as TicketError
from lth_jax.coding.quantize import Precision as Precision
from lth_jax.coding.quantize import bfloat16 as bfloat16
from lth_jax.coding.quantize import exact as exact
from lth_jax.coding.quantize import integers as integers
from lth_jax.coding.reader import Ticket as Ticket
from lth_jax.coding.reader import decode as decode
from lth_jax.coding.size import SizeTable as SizeTable
from lth_jax.coding.size import frontier as frontier
from lth_jax.coding.size import rate_points as rate_points
from lth_jax.coding.size import table as table
from lth_jax.coding.ticket_file import inspect as inspect
from lth_jax.coding.ticket_file import load as load
from lth_jax.coding.ticket_file import load_leaf as load_leaf
from lth_jax.coding.ticket_file import save as save
from lth_jax.coding.writer import Initializer as Initializer
from lth_jax.coding.writer import encode as encode
from lth_jax.registry import import_modules

import_modules(__name__, __path__)  # every module registers its parts
