"""Names of the files that a preparation writes next to the shards.

They begin with an underscore, so that pyarrow, pandas, Spark, and Datasets read the folder as one table of its shards.
"""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "_manifest.json"
REPORT: Final = "_report.json"
PAGE: Final = "_report.html"
REJECTS: Final = "_rejects.jsonl"
OUTPUTS: Final = (MANIFEST, REPORT, PAGE, REJECTS)
