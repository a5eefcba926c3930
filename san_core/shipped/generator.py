"""The SAN-PG that ships with the package: where it is, and the word for it.

MODEL_CARD.md beside this file says what it was trained on, what it reaches, and where it fails;
`python -m tools.generator` makes it anew.
"""

from pathlib import Path

SHIPPED_GENERATOR = "shipped"  # as people name it in the place of a folder or URI
SHIPPED_FOLDER = Path(__file__).parent
