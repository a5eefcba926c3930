"""The SAN-PG that ships with the package: its place, and the word that names it.

MODEL_CARD.md beside this file says what it was trained on, what it reaches, and where it fails;
`python -m tools.generator` makes it anew.
"""

from pathlib import Path

SHIPPED_GENERATOR = "shipped"  # accepted in place of a folder or URI
SHIPPED_FOLDER = Path(__file__).parent
