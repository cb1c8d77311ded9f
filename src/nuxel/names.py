"""Names of the files that nuxel writes: what follows the name of an image, and those that stand once in a folder."""

LABELS_END = "_labels.tif"
TABLE_END = "_nuclei.csv"
OUTLINES_END = "_nuclei.geojson"
OVERLAY_END = "_overlay.png"
ATTENTION_END = "_attention.png"
SUMMARY = "summary.csv"
RUN_RECORD = "run.json"
RUN_LENGTHS = "run_lengths.csv"
RUN_RECIPE = "recipe.json"
RUN_METRICS = "metrics.csv"

IMAGE_ENDS = (LABELS_END, TABLE_END, OUTLINES_END, OVERLAY_END, ATTENTION_END)
FOLDER_FILES = (SUMMARY, RUN_RECORD, RUN_LENGTHS)
