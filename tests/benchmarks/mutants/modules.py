"""Which modules the sample of mutants is taken from, and the test files that cover each."""

RANKING = "tests/san_core/evaluation"
TRAINING = "tests/san_core/training"
STORAGE = "tests/components/storage"
RUNNER = "tests/components/runner"
OFFICIAL = "tests/san_core/test_official_run.py"
_RANKED = (
    f"{RANKING}/test_ranking.py",
    f"{RANKING}/test_ranking_bounds.py",
    f"{RANKING}/test_ranking_exact.py",
    f"{RANKING}/kernels",
    f"{RANKING}/protocols/test_scoring.py",
)
_SCORED = (f"{RANKING}/protocols/test_single_shot.py", f"{RANKING}/protocols/test_scoring.py")
_PUT = (
    f"{STORAGE}/test_s3_client.py",
    f"{STORAGE}/test_strange_stores.py",
    f"{STORAGE}/test_object_store.py",
)
_RUN = (f"{RUNNER}/test_store.py", f"{RUNNER}/test_local.py")

# By area, as much of the sample comes from each: module and the test files that are run for it.
AREAS: dict[str, dict[str, tuple[str, ...]]] = {
    "ranking": {
        "san_core/evaluation/ranking.py": _RANKED,
        "san_core/evaluation/labels.py": _RANKED,
        "san_core/evaluation/protocol.py": _RANKED,
        "san_core/evaluation/ranked_lists.py": (f"{RANKING}/test_ranked_lists.py",),
        "san_core/evaluation/matrix.py": (f"{RANKING}/test_matrix.py",),
        "san_core/evaluation/rerank.py": (f"{RANKING}/test_rerank.py",),
        "san_core/evaluation/confidence.py": (f"{RANKING}/test_confidence.py",),
        "san_core/evaluation/histogram.py": (f"{RANKING}/test_histogram.py",),
        "san_core/evaluation/roc.py": (f"{RANKING}/test_roc.py",),
        "san_core/evaluation/kernels/distance.py": _RANKED,
        "san_core/evaluation/kernels/operands.py": _RANKED,
        "san_core/evaluation/kernels/rows.py": _RANKED,
        "san_core/evaluation/kernels/streaming.py": _RANKED,
        "san_core/evaluation/protocols/given_distances.py": (f"{RANKING}/test_matrix.py",),
        "san_core/evaluation/protocols/multi_query.py": _SCORED,
        "san_core/evaluation/protocols/scoring.py": _SCORED,
        "san_core/evaluation/protocols/single_shot.py": _SCORED,
    },
    "losses": {
        "san_core/training/losses.py": (f"{TRAINING}/test_losses.py", OFFICIAL),
        "san_core/training/objective.py": (
            f"{TRAINING}/test_losses.py",
            f"{TRAINING}/test_cheap_textures.py",
        ),
        "san_core/training/finiteness.py": (f"{TRAINING}/test_finiteness.py",),
        "san_core/training/places.py": (f"{TRAINING}/test_places.py",),
        "san_core/training/schedule.py": (f"{TRAINING}/test_schedule.py", OFFICIAL),
        "san_core/training/sums.py": (f"{TRAINING}/test_sums.py",),
    },
    "storage": {
        "components/storage/checkpoint.py": (f"{STORAGE}/test_checkpoint.py",),
        "components/storage/folder.py": (
            f"{STORAGE}/test_folder.py",
            f"{STORAGE}/test_places.py",
        ),
        "components/storage/object_store.py": _PUT,
        "components/storage/outputs.py": (f"{STORAGE}/test_outputs.py",),
        "components/storage/places.py": (f"{STORAGE}/test_places.py",),
        "components/storage/retry.py": _PUT,
        "components/storage/s3_client.py": _PUT,
        "components/storage/s3_servers.py": (f"{STORAGE}/test_s3_servers.py",),
        "components/storage/staging.py": (f"{STORAGE}/test_staging.py",),
        "components/storage/store.py": (
            f"{STORAGE}/test_folder.py",
            f"{STORAGE}/test_strange_stores.py",
        ),
        "components/storage/texture_store.py": (f"{STORAGE}/test_texture_store.py",),
        "components/storage/transfer.py": (f"{STORAGE}/test_transfer.py",),
    },
    "keys": {
        "components/command/code.py": ("tests/components/command/test_code.py",),
        "components/kubeflow/caching.py": ("tests/components/kubeflow/test_caching.py",),
        "components/runner/keys.py": (f"{RUNNER}/test_keys.py", *_RUN),
        "components/runner/local.py": _RUN,
        "components/runner/state.py": _RUN,
        "components/runner/store.py": _RUN,
        "components/storage/sources.py": (f"{STORAGE}/test_sources.py",),
        "san_core/seeds.py": (
            "tests/san_core/test_seeds.py",
            "tests/san_core/data/batches/test_sampler.py",
        ),
    },
}
